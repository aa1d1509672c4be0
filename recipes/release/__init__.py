"""What the recipes of checkpoints that ship share: photos.py, avatars.py, emoji.py, cifar10.py,
clips.py.

run.py       a release: its options and folder, the words of `jpeglm train`, what a run came to
card.py      model cards, out of the templates in cards/ and of measured figures
figures.py   pictures for the documents
drawn.py     one picture for each caption, and whether what was drawn is copied (copied.py)
recognised.py  whether one sees what a drawn emoji is meant to be
asked.py     beside these: what holes.py, hole_sampling.py and sampling.py share
"""
