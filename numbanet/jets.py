"""Jets: a value with its derivatives by the inputs, carried through the layers of a network.

Beside each number y of a layer go dy/dx_d for every input and sums of second derivatives, such as
the Laplacian. A matrix maps each of these like the number itself. An activation y = f(z) gives

    dy  = f'(z) dz
    d2y = f'(z) d2z + f''(z) (products of first derivatives of z)

So the Laplacian needs two columns more than there are inputs. Griewank and Walther 2008, Evaluating
Derivatives, chapter 13; for the Laplacian, Li et al. 2024, A Computational Framework for Neural
Network-based Variational Monte Carlo with Forward Laplacian.
"""

from dataclasses import dataclass
from functools import cache, cached_property

from numbanet.activations import Activation
from numbanet.device import ONE, belongs_to, device, unrolled

NONE = -1  # no input
SECONDS = ("laplacian", "diagonal", "hessian")


@dataclass(frozen=True)
class Jet:
    """Columns of a jet: the value, the derivative by each input, and second derivatives.

    Args:
        n_dims: inputs.
        wanted: which second derivatives: the "laplacian", their sum d2y/dx_d^2 over d; the
            "diagonal", these by themselves; the "hessian"; the "pairs", which are a Hessian without
            what is in it twice; None for none.
    """

    n_dims: int
    wanted: str | None = None

    @cached_property
    def seconds(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Pairs of inputs whose second derivatives are summed, for each such column."""
        squares = tuple((d, d) for d in range(self.n_dims))
        if self.wanted == "laplacian":
            return (squares,)
        if self.wanted == "diagonal":
            return tuple((each,) for each in squares)
        if self.wanted in ("hessian", "pairs"):
            return tuple(((k, d),) for d in range(self.n_dims) for k in range(d + 1))
        return ()

    @property
    def n_columns(self) -> int:
        return 1 + self.n_dims + len(self.seconds)

    @property
    def partials(self) -> tuple[tuple[int, int, int], ...]:
        """(column, a, b): the derivatives by inputs a and b, or NONE, that a column is the sum of.

        Those of a column follow each other.
        """
        firsts = ((1 + d, d, NONE) for d in range(self.n_dims))
        return ((0, NONE, NONE), *firsts, *self.products)

    @property
    def products(self) -> tuple[tuple[int, int, int], ...]:
        """(column, a, b): as partials, the second derivatives alone."""
        first = 1 + self.n_dims
        return tuple((first + j, *pair) for j, each in enumerate(self.seconds) for pair in each)

    def partials_through(self, dims: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
        """The same partials by the inputs of an encoding, which are the inputs `dims`.

        Derivatives by other inputs, which are 0, are left out.
        """

        def own(a: int) -> list[int]:
            return [NONE] if a == NONE else [k for k, dim in enumerate(dims) if dim == a]

        return tuple(
            (column, k, j) for column, a, b in self.partials for k in own(a) for j in own(b)
        )

    @property
    def distinct(self) -> "Jet":
        """The same columns, of which nothing is twice among the second derivatives."""
        return Jet(self.n_dims, "pairs") if self.wanted == "hessian" else self

    @property
    def second_shape(self) -> tuple[int, ...]:
        """Shape of the second derivatives of one number."""
        sizes = {"laplacian": (), "diagonal": (self.n_dims,), "hessian": (self.n_dims,) * 2}
        return sizes.get(self.wanted, (0,))

    @cached_property
    def second_columns(self) -> tuple[int, ...]:
        """Column of each second derivative, in C order; a Hessian has most of them twice."""
        first, n = 1 + self.n_dims, self.n_dims
        if self.wanted == "hessian":
            rows = {(d, k): first + d * (d + 1) // 2 + k for d in range(n) for k in range(d + 1)}
            return tuple(rows[max(d, k), min(d, k)] for d in range(n) for k in range(n))
        return tuple(range(first, self.n_columns))


# Numbers of a jet lie `lanes` apart, and those of neighbouring jets side by side, so that a loop
# over lanes is one of vector instructions; on CUDA a thread has one lane.


@cache
def add_products(jet: Jet, lanes: int):
    """Device function (i, z, factor, y): add factor times the products of z's derivatives to y."""
    products, n_products = jet.products, len(jet.products)

    @device
    def add_product(k, i, z, factor, y):
        column, a, b = products[k]
        product = z[(1 + a) * lanes + i] * z[(1 + b) * lanes + i]
        y[column * lanes + i] += factor * product

    @device
    def add_products(i, z, factor, y):
        if n_products > 0:
            unrolled(n_products, add_product, i, z, factor, y)

    return add_products


@cache
def activate_jet(activation: Activation, jet: Jet, lanes: int = 1):
    """Device function (i, z, y): lane i of the jet of y = f(z), both [n_columns * lanes]."""
    forward, backward, second = activation.forward, activation.backward, activation.second
    from_input, n_others = activation.from_input, jet.n_columns - 1
    bends, add = len(jet.products) > 0, add_products(jet, lanes)

    @device
    def scale(k, i, slope, z, y):
        y[(k + 1) * lanes + i] = slope * z[(k + 1) * lanes + i]

    @device
    @belongs_to(f"{activation.name}.forward")
    def activate_jet(i, z, y):
        value = forward(z[i])
        y[i] = value
        kept = z[i] if from_input else value
        unrolled(n_others, scale, i, backward(ONE, kept), z, y)
        if bends:
            add(i, z, second(kept), y)

    return activate_jet


@cache
def activate_jet_backward(activation: Activation, jet: Jet, lanes: int = 1):
    """Device function (i, kept, z, dl_dy, dl_dz): lane i of the gradient of the jet of z.

    `kept` is the value of y, or of z where the activation is differentiated there.
    """
    backward, second, third = activation.backward, activation.second, activation.third
    products, n_products, n_others = jet.products, len(jet.products), jet.n_columns - 1
    bends = n_products > 0

    @device
    def other(k, i, slope, bend, z, dl_dy, dl_dz):
        here = (k + 1) * lanes + i
        dl_dz[i] += bend * z[here] * dl_dy[here]
        dl_dz[here] = slope * dl_dy[here]

    @device
    def product(k, i, bend, change, z, dl_dy, dl_dz):
        column, a, b = products[k]
        left, right = (1 + a) * lanes + i, (1 + b) * lanes + i
        gradient = dl_dy[column * lanes + i]
        dl_dz[i] += change * z[left] * z[right] * gradient
        dl_dz[left] += bend * z[right] * gradient
        dl_dz[right] += bend * z[left] * gradient

    @device
    @belongs_to(f"{activation.name}.second")
    def activate_jet_backward(i, kept, z, dl_dy, dl_dz):
        slope, bend = backward(ONE, kept), second(kept)
        dl_dz[i] = slope * dl_dy[i]
        unrolled(n_others, other, i, slope, bend, z, dl_dy, dl_dz)
        if bends:
            unrolled(n_products, product, i, bend, third(kept), z, dl_dy, dl_dz)

    return activate_jet_backward
