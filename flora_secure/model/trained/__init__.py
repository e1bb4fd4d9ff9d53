"""A trained adapter in use: what its folder holds, a classifier made from it, and weights with it merged in."""
