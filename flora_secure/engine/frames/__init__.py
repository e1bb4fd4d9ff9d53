"""The frozen part of training and evaluation, for each kind of placement, as client and server make it alike."""
