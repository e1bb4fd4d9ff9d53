"""Every claim of a run derived again from its log: `checks` lists them, one file a group of them."""
