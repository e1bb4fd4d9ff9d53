"""What a run decides on public data alone before its first round: its warm start, and its control variate."""
