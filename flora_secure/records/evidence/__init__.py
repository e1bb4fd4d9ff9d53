"""What a run keeps for its auditors beside log and report."""
