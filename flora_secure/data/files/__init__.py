"""Reading data sets from files: hostile until read, and what cannot be used is counted."""
