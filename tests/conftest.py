"""Shared by all tests: deterministic property tests without deadlines, and one thread, so that parallel runs stay fast."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("argus", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("argus")
