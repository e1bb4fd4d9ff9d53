"""The normal quantile beyond float64: the table that places nearly every draw, and multiple precision for the rest."""
