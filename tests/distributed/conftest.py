"""What the tests of several ranks share: the communicator of this launch, maybe of one process."""

import os

import pytest

import numbanet


def pytest_configure(config):
    """Temporary folders of each rank's own: pytest removes old ones."""
    if (folder := os.environ.get("FOLDER_OF_RANKS")) is not None:
        config.option.basetemp = f"{folder}/{os.getpid()}"


@pytest.fixture(scope="session")
def comm():
    return numbanet.distributed.init(timeout=60)
