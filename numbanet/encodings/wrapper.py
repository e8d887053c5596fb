"""Base of encodings around another one."""

import dataclasses

from numbanet.encodings.base import AbstractEncoding
from numbanet.forwarding import forwarding

PASSED_ON = """
    n_outputs n_params required_output_alignment needs_whole_batch param_shapes grid_dims parts
    constants padded initial_params partition_columns partition_param_ends reads_numbers numbers
    forward backward_input backward_params double_backward_input double_backward_params
    forward_rows backward_params_rows double_backward_params_rows
    n_derivatives add_partial partial_backward_params partial_backward_params_rows
"""


class AbstractWrapper(forwarding("encoding", PASSED_ON), AbstractEncoding):
    """Base of encodings around another one, to which undefined attributes are forwarded."""

    encoding: AbstractEncoding

    def placed(self, first_param):
        placed = self.encoding.placed(first_param)
        is_same = placed == self.encoding  # also where `encoding` is no field
        return self if is_same else dataclasses.replace(self, encoding=placed)

    def kernel_key(self):
        key = self.encoding.kernel_key()
        return self if key == self.encoding else dataclasses.replace(self, encoding=key)
