"""Images that a program passes, or one party of a federation has, instead of a data set by name."""
