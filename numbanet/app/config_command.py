"""`numbanet config`: validation of a config, its complete form, and its schema."""

import warnings
from collections.abc import Mapping
from typing import Any

from numbanet.app.errors import UsageError
from numbanet.create import asks_for_determinism, create_components
from numbanet.saved_training import config_of
from numbanet.unknown_options import UnknownOptionWarning


def complete(config: Mapping[str, Any], dims: tuple[int, int]) -> tuple[dict[str, Any], list[str]]:
    """Config with every option written out, and the entries that nothing reads.

    Args:
        config: from load_config.
        dims: widths of inputs and outputs, on which some defaults depend.

    Raises:
        UsageError: it cannot be used.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnknownOptionWarning)
        try:
            composition, loss, optimizer = create_components(*dims, config)
            loss.row(composition.n_output_dims, False)  # raises if it cannot take so many outputs
        except ValueError as error:
            raise UsageError(str(error)) from error
    unread = [line for warning in caught for line in str(warning.message).splitlines()]
    options = asks_for_determinism(config), config.get("perturbation_sigma", 0.0)
    return config_of(composition, loss, optimizer, *options), unread
