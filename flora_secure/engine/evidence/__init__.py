"""What a simulation leaves for auditors: the noise in its sums, measured, and canaries among its clients."""
