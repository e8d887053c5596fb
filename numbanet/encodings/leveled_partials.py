"""Partial derivatives of a grid's features by its inputs, where a sample reads some levels alone.

Those by the level itself are 0.
"""

from functools import cached_property

from numbanet.device import device
from numbanet.encodings.grid.partials import all_partials
from numbanet.encodings.input_range import AbstractInputRange


class LeveledPartials(AbstractInputRange):
    """Base of Leveled with the functions of PartialDerivatives.

    Subclasses have `shows` and `shown_rows`.
    """

    def _of_shown(self, function):
        """Function (k, x, params, a, b, ...) of a level that a sample reads."""
        (first, stop), shows, within, reads = self.dims, self.shows, self.within, self.reads
        if function is None:
            return None

        @device
        def of_shown(k, x, params, a, b, *arguments):
            if reads(a, b) and shows(k, x):
                function(k, x[first:stop], params, within(a), within(b), *arguments)

        return of_shown

    @cached_property
    def partition_add_partial(self):
        return self._of_shown(self.encoding.partition_add_partial)

    @cached_property
    def partition_partial_backward_params(self):
        return self._of_shown(self.encoding.partition_partial_backward_params)

    @cached_property
    def add_partial(self):
        return all_partials(self, self.partition_add_partial)

    @cached_property
    def partial_backward_params(self):
        return all_partials(self, self.partition_partial_backward_params)

    @cached_property
    def partial_backward_params_rows(self):
        (first, stop), within, reads = self.dims, self.within, self.reads
        encoding_rows, shown_rows = self.encoding.partial_backward_params_rows, self.shown_rows
        if encoding_rows is None:
            return None

        @device
        def leveled_partial_backward_params_rows(k, xs, params, by, dl_dys, dl_dparams):
            a, b = by
            if reads(a, b):
                inner, read = (within(a), within(b)), shown_rows(k, xs, dl_dys)
                encoding_rows(k, xs[:, first:stop], params, inner, read, dl_dparams)

        return leveled_partial_backward_params_rows
