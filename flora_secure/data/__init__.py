"""Images, labels and how the clients share them."""
