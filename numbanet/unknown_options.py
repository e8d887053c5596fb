"""Unknown options of a config: one warning for all of them, with suggestions."""

import contextvars
import difflib
import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from numbanet.caller import warn_caller
from numbanet.shown import joined, shown

NEAR = 0.75  # the least likeness of a suggestion, 1 for equal names
MOST_NAMED = 8  # in one warning


def is_integer(value: Any, expected: int | None) -> bool:
    """Whether the value is that integer, of Python or NumPy."""
    return isinstance(value, numbers.Integral) and value == expected


# Options that real programs always pass, and the values with which they say nothing.
IDLE = {
    "n_dims_to_encode": lambda value, derived: is_integer(value, derived.get("n_dims")),
    "dims_to_encode_begin": lambda value, derived: is_integer(value, 0),
    "feedback_alignment": lambda value, derived: value is False,
}

# Names from elsewhere, by kind, and the otype that serves there.
ELSEWHERE = {
    "encoding": {
        "HashEncoding": "HashGrid",
        "MultiResHashGrid": "HashGrid",
        "NGP": "HashGrid",
        "Instant-NGP": "HashGrid",
        "Fourier": "Frequency",
        "FourierFeatures": "Frequency",
        "Positional": "Frequency",
        "PositionalEncoding": "Frequency",
        "Sinusoidal": "Frequency",
        "SH": "SphericalHarmonics",
        "None": "Identity",
    },
    "network": {
        "FullyConnected": "CutlassMLP",
        "Linear": "CutlassMLP",
        "Dense": "CutlassMLP",
        "MultiLayerPerceptron": "CutlassMLP",
        "FFMLP": "FullyFusedMLP",
        "FusedMLP": "FullyFusedMLP",
    },
    "activation": {
        "Identity": "None",
        "Linear": "None",
        "Exp": "Exponential",
        "Sin": "Sine",
        "Swish": "SiLU",
        "GELU": "SiLU",
        "ELU": "Softplus",
    },
    "loss": {
        "MSE": "L2",
        "MSELoss": "L2",
        "MeanSquaredError": "L2",
        "SquaredError": "L2",
        "MAE": "L1",
        "L1Loss": "L1",
        "MeanAbsoluteError": "L1",
        "SmoothL1": "Huber",
        "SmoothL1Loss": "Huber",
        "HuberLoss": "Huber",
        "CrossEntropyLoss": "CrossEntropy",
        "RelativeMSE": "RelativeL2",
        "RelMSE": "RelativeL2",
    },
    "optimizer": {
        "AdaBound": "Adam",  # with adabound
        "Momentum": "SGD",
        "GradientDescent": "SGD",
        "ExponentialMovingAverage": "EMA",
        "StepLR": "ExponentialDecay",
        "ExponentialLR": "ExponentialDecay",
        "CosineAnnealingLR": "CosineDecay",
        "LinearLR": "WarmUp",
        "MultiStepLR": "Piecewise",
        "SWA": "Average",
    },
}

# Names of options from elsewhere, and those that may serve, the first one that there is.
OPTIONS_ELSEWHERE = {
    "lr": ("learning_rate", "learning_rate_factor", "nested"),
    "learning_rate": ("learning_rate_factor", "nested"),
    "eps": ("epsilon",),
    "betas": ("beta1",),
    "weight_decay": ("l2_reg", "nested"),
    "ns_steps": ("n_iterations",),
    "precondition_frequency": ("interval",),
    "gamma": ("decay_base",),
    "T_max": ("n_steps",),
    "eta_min": ("end_factor",),
    "omega_0": ("siren_omega",),
    "w0": ("siren_omega",),
    "hidden_dim": ("n_neurons",),
    "hidden_size": ("n_neurons",),
    "n_layers": ("n_hidden_layers",),
    "num_layers": ("n_hidden_layers",),
    "use_bias": ("bias",),
    "sigma": ("scale",),
}


class UnknownOptionWarning(UserWarning):
    """The config holds options that nothing reads."""


_found: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("found", default=None)


class UnknownOptions:
    """Collector of unknown options while components are made, also nested ones.

    The outermost one warns at its end, once, at the line that called numbanet; nothing is said
    where an error ends it.

    Args:
        warns: False to leave it to the caller, who finds the messages in `messages`.
    """

    def __init__(self, warns: bool = True):
        self.messages: list[str] = []
        self._warns = warns

    def __enter__(self) -> "UnknownOptions":
        self._is_outermost = not self._warns or _found.get() is None
        if self._is_outermost:
            self._token = _found.set(self.messages)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if not self._is_outermost:
            return
        _found.reset(self._token)
        if kind is None and self._warns and self.messages:
            named = self.messages[:MOST_NAMED]
            if len(self.messages) > MOST_NAMED:
                named.append(f"and {len(self.messages) - MOST_NAMED} more")
            warn_caller("\n".join(named), UnknownOptionWarning)


def note(message: str) -> None:
    """Add to the innermost `with UnknownOptions()`."""
    _found.get().append(message)


def note_unknown(
    given: Mapping[str, Any],
    known: Iterable[str],
    path: str,
    owner: str,
    derived: Mapping,
    what: str = "option",
) -> None:
    """Note the given options that a component does not have, unless they have no effect."""
    known = list(known)
    for key, value in given.items():
        if key in known or (key in IDLE and IDLE[key](value, derived)):
            continue
        hint = near_option(key, known)
        hint = f"did you mean {hint!r}? " if hint else ""
        note(
            f"{joined(path, key)}: {owner} has no such {what}; {hint}"
            f"it has {', '.join(known) or 'none'}"
        )


def near(name: Any, known: Iterable[str]) -> str | None:
    """Closest known name; None if none is near."""
    if not isinstance(name, str) or len(name) > 2 * max(map(len, known), default=0):
        return None
    spellings = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), spellings, 1, NEAR)
    return spellings[found[0]] if found else None


def near_option(name: Any, known: Collection[str]) -> str | None:
    """Closest known option, or the one that serves for a name from elsewhere."""
    meant = OPTIONS_ELSEWHERE.get(name, ()) if isinstance(name, str) else ()
    return next((each for each in meant if each in known), None) or near(name, known)


def near_otype(kind: str, name: Any, known: Iterable[str]) -> str:
    """Suggestion of an otype instead of an unknown one; empty where none is near."""
    elsewhere = ELSEWHERE.get(kind, {})
    found = near(name, [*known, *elsewhere])
    return f"; did you mean {shown(elsewhere.get(found, found))}?" if found else ""
