"""RelativeL2Luminance: (p - t)^2 / (Y^2 + 0.01) / pdf, Y the luminance of the predicted colour.

Y = 0.299 r + 0.587 g + 0.114 b of the first three channels; of two colours that are added, in the
first six, from six channels on. The denominator counts as a constant.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.device import ONE, TWO, ZERO, device
from numbanet.losses.base import EPSILON, AbstractLoss
from numbanet.registry import ConfigError, register

N_CHANNELS = 3
RED, GREEN, BLUE = (np.float32(weight) for weight in (0.299, 0.587, 0.114))


@register("loss", "RelativeL2Luminance")
@dataclass(frozen=True)
class RelativeL2Luminance(AbstractLoss):
    """The squared difference, relative to the square of the luminance; needs 3 outputs or more."""

    @cache  # noqa: B019 (components are few and live as long as the program)
    def row(self, n: int, has_pdf: bool):
        if n < N_CHANNELS:
            raise ConfigError(
                f"loss.otype: RelativeL2Luminance needs {N_CHANNELS} outputs or more, not {n}; "
                "use RelativeL2"
            )
        n_colours = 2 if n >= 2 * N_CHANNELS else 1

        @device
        def relative_l2_luminance(prediction, target, pdf, dl_dprediction):
            luminance = ZERO
            for k in range(0, n_colours * N_CHANNELS, N_CHANNELS):
                luminance += RED * prediction[k] + GREEN * prediction[k + 1]
                luminance += BLUE * prediction[k + 2]
            weight = ONE / (luminance * luminance + EPSILON)
            total = ZERO
            for k in range(n):
                difference = prediction[k] - target[k]
                weighted = difference * weight
                if has_pdf:
                    weighted /= pdf[k]
                dl_dprediction[k] = TWO * weighted
                total += difference * weighted
            return total

        return relative_l2_luminance
