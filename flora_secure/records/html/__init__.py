"""A run as a page that people look at: one HTML file of one run, or of several side by side."""
