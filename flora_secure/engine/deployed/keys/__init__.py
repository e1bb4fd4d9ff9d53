"""The keys of a federation, its certificates, and the file that says who is enrolled."""
