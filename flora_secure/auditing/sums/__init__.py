"""The second audit: the server's steps taken again with the released sums of a run's folder."""
