"""Looking inside a picture: every step from its pixels to the model's tokens, as one trace."""
