"""The command line of flora-secure: one small file a command; it shows what the library computes."""
