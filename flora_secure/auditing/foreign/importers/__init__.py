"""Importers: what other systems keep of differential privacy, as keys of the foreign log. One file a system."""
