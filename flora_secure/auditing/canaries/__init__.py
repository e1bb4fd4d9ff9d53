"""Canaries: members of a federation that a secret coin lets contribute or not, by which an audit measures the noise."""
