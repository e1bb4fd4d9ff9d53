import os

# the suite trains tiny models: one thread is faster than several, and leaves the other core alone
os.environ.setdefault("OMP_NUM_THREADS", "1")
