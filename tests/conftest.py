"""For all tests: torch takes one thread, as `make test` runs several tests at once."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
