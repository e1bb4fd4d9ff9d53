"""A real federation, whatever carries its messages: the server's rounds, a site, and the keys of both."""
