"""Parts of the pretraining of the embedded tiny CLIP (`scripts/pretrain_tiny_clip.py`)."""
