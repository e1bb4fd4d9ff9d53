"""How the embedded icons are made from the npm package `@iconify/json`; `docs/making/pack_icons.py` runs it."""
