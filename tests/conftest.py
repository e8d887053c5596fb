"""Settings of the whole suite."""

import os

import hypothesis

# Compilation takes seconds, so there is no deadline; the same examples are drawn in every run.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


def pytest_configure(config):
    os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
    if hasattr(config, "cache"):  # keeps compiled code beside pytest's cache, not in the user's
        os.environ.setdefault("NUMBANET_CACHE_DIR", str(config.cache.mkdir("kernels")))
