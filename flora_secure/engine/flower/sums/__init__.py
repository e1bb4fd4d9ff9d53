"""Secure sums in Flower for any model: a strategy of the server's around another, and a mod of the sites'."""
