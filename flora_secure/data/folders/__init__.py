"""Folders of images: what lies in them, what of it are classes and clients, and what is no image."""
