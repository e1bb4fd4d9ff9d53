"""The audit of systems that are not ours: what their logs claim, what follows from them, and what cannot be known."""
