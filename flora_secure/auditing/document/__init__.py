"""What an auditor signs: the guarantee on top, what it rests on below, every finding, and what nobody could check."""
