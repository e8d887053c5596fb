"""Partial derivatives of an encoding's features by its inputs, from which jets are made."""

from functools import cached_property

from numbanet.device import belongs_to, device
from numbanet.encodings.parts import of_all


class PartialDerivatives:
    """Device functions for the first and second derivatives by chosen inputs, `a` and `b`.

    Each is the number of an input, or -1 for none; b is -1 if a is. An encoding that has some says
    so in `n_derivatives`, and defines add_partial.
    """

    # As many in turn as exist, up to 2. Those that are 0 almost everywhere do not count, such as
    # the second ones of straight lines.
    n_derivatives = 0
    # (x, params, a, b, y): add to y the derivative of the features by inputs a and b.
    add_partial = None
    # (x, params, a, b, dl_dy, dl_dparams): add the gradient of the parameters through add_partial.
    partial_backward_params = None
    # (partition, x, params, a, b, y): as add_partial.
    partition_add_partial = of_all("add_partial")
    # (partition, x, params, a, b, dl_dy, dl_dparams): as partial_backward_params.
    partition_partial_backward_params = of_all("partial_backward_params")

    @cached_property
    def partial_backward_params_rows(self):
        """(partition, xs, params, by, dl_dys, dl_dparams): by = (a, b); as backward_params_rows."""
        partial_backward_params = self.partial_backward_params
        if partial_backward_params is None:
            return None

        @device
        @belongs_to(f"{type(self).__name__}.partial_backward_params")
        def partial_backward_params_rows(partition, xs, params, by, dl_dys, dl_dparams):
            a, b = by
            for i in range(xs.shape[0]):
                partial_backward_params(xs[i], params, a, b, dl_dys[i], dl_dparams)

        return partial_backward_params_rows


def partial_of_feature(encoding):
    """add_partial of an encoding whose features depend on one input each."""
    n_dims, n_features, feature = encoding.n_dims, encoding.n_features, encoding.feature

    @device
    @belongs_to(f"{type(encoding).__name__}.feature")
    def elementwise_add_partial(x, params, a, b, y):
        for d in range(n_dims):
            for k in range(n_features):
                value, first, second = feature(x[d], k)
                if a < 0:
                    y[d * n_features + k] += value
                elif a == d and b < 0:
                    y[d * n_features + k] += first
                elif a == d and b == d:
                    y[d * n_features + k] += second

    return elementwise_add_partial
