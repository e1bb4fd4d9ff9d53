"""Where the program meets what is not its own: files of others, and processes that it starts."""
