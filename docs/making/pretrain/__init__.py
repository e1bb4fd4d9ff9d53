"""Parts of the pretraining of the embedded tiny CLIP (`docs/making/pretrain_tiny_clip.py`)."""
