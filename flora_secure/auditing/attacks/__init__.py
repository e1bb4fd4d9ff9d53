"""Attacks on a run's federation by who has its data and model: what each object that others see would give away."""
