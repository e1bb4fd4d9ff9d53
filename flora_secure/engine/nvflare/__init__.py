"""A federation over NVFlare: its Collab API carries the server's messages, and each site answers in its own process."""
