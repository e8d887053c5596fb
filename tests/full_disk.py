"""A full disk, as far as a test can have one."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(n_bytes):
    """No file can grow beyond n_bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
