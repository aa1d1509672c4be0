"""Looking inside a picture or clip: every step from pixels to the model's tokens, as one trace."""
