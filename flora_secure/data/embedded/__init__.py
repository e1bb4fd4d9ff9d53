"""The data sets that ship: packed images, and the icons."""
