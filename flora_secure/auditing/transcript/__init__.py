"""The transcript audit: what the masking protocol's messages show by themselves, from bytes and without secrets."""
