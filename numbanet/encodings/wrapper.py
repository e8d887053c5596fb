"""An encoding made of another one; subclasses change what differs."""

import dataclasses
from functools import cached_property

from numbanet.encodings.base import AbstractEncoding


class AbstractWrapper(AbstractEncoding):
    """Passes everything on to `encoding`."""

    encoding: AbstractEncoding

    @property
    def n_outputs(self):
        return self.encoding.n_outputs

    @property
    def n_params(self):
        return self.encoding.n_params

    @property
    def required_output_alignment(self):
        return self.encoding.required_output_alignment

    @property
    def needs_whole_batch(self):
        return self.encoding.needs_whole_batch

    @property
    def param_shapes(self):
        return self.encoding.param_shapes

    @property
    def partition_columns(self):
        return self.encoding.partition_columns

    @property
    def grid_dims(self):
        return self.encoding.grid_dims

    @property
    def parts(self):
        return self.encoding.parts

    @property
    def partition_param_ends(self):
        return self.encoding.partition_param_ends

    @property
    def constants(self):
        return self.encoding.constants

    def padded(self, n_columns):
        return self.encoding.padded(n_columns)

    def placed(self, first_param):
        placed = self.encoding.placed(first_param)
        is_same = placed == self.encoding  # also where `encoding` is no field
        return self if is_same else dataclasses.replace(self, encoding=placed)

    @property
    def reads_numbers(self):
        return self.encoding.reads_numbers

    @property
    def numbers(self):
        return self.encoding.numbers

    def kernel_key(self):
        key = self.encoding.kernel_key()
        return self if key == self.encoding else dataclasses.replace(self, encoding=key)

    def initial_params(self, rng):
        return self.encoding.initial_params(rng)

    @cached_property
    def forward(self):
        return self.encoding.forward

    @cached_property
    def backward_input(self):
        return self.encoding.backward_input

    @cached_property
    def backward_params(self):
        return self.encoding.backward_params

    @cached_property
    def double_backward_input(self):
        return self.encoding.double_backward_input

    @cached_property
    def double_backward_params(self):
        return self.encoding.double_backward_params

    @cached_property
    def forward_rows(self):
        return self.encoding.forward_rows

    @cached_property
    def backward_params_rows(self):
        return self.encoding.backward_params_rows

    @cached_property
    def double_backward_params_rows(self):
        return self.encoding.double_backward_params_rows
