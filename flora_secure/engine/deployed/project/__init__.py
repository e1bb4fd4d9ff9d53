"""The folder that a federation begins with: the app that all parties share, a policy to begin with, an example."""
