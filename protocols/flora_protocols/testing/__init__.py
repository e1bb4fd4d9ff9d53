"""The test vectors of SPEC.md, section 13: how they are made and compared. The protocol needs none of it."""
