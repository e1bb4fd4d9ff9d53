import os
import tempfile

# the suite trains tiny models: one thread is faster than several, and leaves the other core alone
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what commands cache stays out of the user's home, and out of the way of the next run
_CACHE = tempfile.TemporaryDirectory(prefix="flora-secure-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
