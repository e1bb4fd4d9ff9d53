"""The transcript audit: what the messages of the masking protocol show by themselves, from bytes and without secrets."""
