"""Interface of engines: they run the passes of one model on one target, and know no trainer."""

from dataclasses import dataclass
from typing import Any, Protocol

from numbanet.encoded_network import EncodedNetwork
from numbanet.jets import Jet
from numbanet.losses.base import AbstractLoss


@dataclass(frozen=True)
class Gradients:
    """Gradients of the parameters; those of the encoding may be added up elsewhere first."""

    flat: Any  # float32 [n_params]
    scatter: Any = None  # in the precision of the kernels, zero between the passes

    @property
    def in_halves(self) -> bool:
        return self.scatter is not None


@dataclass(slots=True)  # not frozen, which would take three times as long to make
class Batch:
    """Arguments of a forward and backward pass, checked, on the target.

    With targets the loss is computed, and its gradient unless there is an external one.
    """

    inputs: Any
    targets: Any = None
    pdf: Any = None
    # The gradient of the outputs, in the place of the loss's; on a GPU it may be halves.
    external_dl_dy: Any = None
    features: Any = None  # of the engine's `forward`; None to compute them anew
    n_rows: int | None = None  # that the loss is the mean of, where other ranks have some too
    noise: Any = None  # Perturbation of the outputs for the loss; composed engines alone have it
    has_levels: bool = False  # whether max_level is the last column of the inputs
    is_nominal: bool = False  # n_rows may be that of an earlier batch: ranks weight the sums

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def n_elements(self, n_output_dims: int) -> int:
        """Number of outputs that the loss is the mean of, at least 1."""
        n_rows = len(self) if self.n_rows is None else self.n_rows
        return max(n_rows * n_output_dims, 1)


@dataclass(slots=True)
class LossSums:
    """Loss of a batch in parts: the sum of the first n of `sums`, divided by n_elements."""

    sums: Any  # in the target's memory until the engine's next pass
    n: int
    n_elements: int
    # One float32 in which gradients of the encoding that are large, or NaN, were noted; without it
    # they are only where all gradients are.
    noted: Any = None


@dataclass(frozen=True)
class Service:
    """Engine that serves a kind of pass, and the reason: words for a person."""

    passes: str
    engine: str
    reason: str


class Engine(Protocol):
    """Engine of one encoded network; arrays are the target's, float32 in rows."""

    model: EncodedNetwork
    precision: str
    n_output_dims: int
    deterministic: bool  # whether gradients and losses are the same bits in every run; may be set

    def services(self) -> list[Service]:
        """Services of all kinds of passes."""

    def inference(self, inputs: Any, params: Any, outputs: Any = None) -> Any:
        """Outputs [n, n_output_dims], in a given array or in a new one.

        Args:
            params: as AbstractParameters gives them.
        """

    def forward_backward(
        self, batch: Batch, params: Any, loss: AbstractLoss | None = None,
        gradients: Gradients | None = None, dl_dinput: Any = None, *, overwrite: bool = False,
    ) -> LossSums:  # fmt: skip
        """Add to `gradients` and overwrite `dl_dinput`, where they are given.

        Args:
            loss: of the batch's targets; None where it has none.
            overwrite: the gradients too.
        """

    def double_backward(
        self, inputs: Any, params: Any, dl_dy: Any, dl_ddl_dx: Any, gradients: Gradients | None,
        outputs: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Gradients with respect to dl_dy and the inputs, in given arrays or in new ones; adds to
        `gradients`.
        """


class DerivativeEngine(Protocol):
    """Engine of derivatives of one composition's outputs by its inputs, in float32."""

    deterministic: bool  # as Engine's

    def forward(self, inputs: Any, params: Any, jet: Jet, outputs: tuple[Any, Any, Any]) -> None:
        """Write values, first and second derivatives.

        Args:
            params: float32 [n_params].
            outputs: arrays [n, n_outputs], [n, n_outputs, n_dims] and [n, n_outputs, as many as
                `jet.second_columns`].
        """

    def backward(
        self, inputs: Any, params: Any, jet: Jet, dl_doutputs: tuple[Any, Any, Any],
        gradients: Gradients,
    ) -> None:  # fmt: skip
        """Add the gradient of the parameters, all float32; None in dl_doutputs counts as zeros."""


class AlwaysDeterministic:
    """Engine whose sums always have one order."""

    @property
    def deterministic(self) -> bool:
        return True

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        """No operation: sums always have one order."""


class AbstractNoise(Protocol):
    """Logistic noise from a stream of pcg32, of mean 0; see losses/perturbation.py."""

    state: int  # of the stream

    def perturb(self, sigma: float, y: Any, to: Any) -> None:
        """Write y [n, n_outputs] plus noise of deviation sigma, and move on by so many draws."""


class EncodingEngine(Protocol):
    """Engine of an encoding by itself."""

    deterministic: bool  # as Engine's

    def services(self) -> list[Service]:
        """Services of all kinds of passes."""

    def forward(self, inputs: Any, params: Any, outputs: Any = None) -> Any:
        """Features [n, n_outputs], in a given array or in a new one."""

    def backward(
        self, inputs: Any, params: Any, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        """Add to `gradients` and overwrite `dl_dx`, where they are given."""

    def double_backward(
        self, inputs: Any, params: Any, dl_dy: Any, dl_ddl_dx: Any, gradients: Gradients | None,
        outputs: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Gradients with respect to dl_dy and the inputs, in given arrays or in new ones; adds to
        `gradients`.
        """
