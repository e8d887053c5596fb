"""Float64 twins of the losses: value and gradient of each element, not divided by their number.

Predictions, targets and densities are [..., outputs]; nothing is imported from numbanet.
"""

import numpy as np


def l1(p, t, pdf):
    return np.abs(p - t) / pdf, np.copysign(1 / pdf, p - t)


def l2(p, t, pdf):
    return (p - t) ** 2 / pdf, 2 * (p - t) / pdf


def relative_to(denominator, p, t, pdf):
    scale = 1 / (denominator + 0.01) / pdf
    return np.abs(p - t) * scale, np.copysign(scale, p - t)


def relative_l1(p, t, pdf):
    return relative_to(np.abs(p), p, t, pdf)


def mape(p, t, pdf):
    return relative_to(np.abs(t), p, t, pdf)


def smape(p, t, pdf):
    return relative_to((np.abs(p) + np.abs(t)) / 2, p, t, pdf)


def relative_l2(p, t, pdf):
    scale = 1 / (p**2 + 0.01) / pdf
    return (p - t) ** 2 * scale, 2 * (p - t) * scale


def relative_l2_luminance(p, t, pdf):
    rgb = p[..., :3] + (p[..., 3:6] if p.shape[-1] >= 6 else 0)
    luminance = (rgb @ np.array([0.299, 0.587, 0.114]))[..., None]
    scale = 1 / (luminance**2 + 0.01) / pdf
    return (p - t) ** 2 * scale, 2 * (p - t) * scale


def cross_entropy(p, t, pdf):
    return -t * np.log(p) / pdf, -t / p / pdf


def variance(p, t, pdf):
    return t**2 / p / pdf - t**2 / pdf**2, -(t**2) / p**2 / pdf


def huber(p, t, pdf, delta=1.0):
    d = np.abs(p - t)
    value = np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))
    return value / pdf, np.where(d <= delta, p - t, delta * np.sign(p - t)) / pdf


def log_l1(p, t, pdf):
    d = np.abs(p - t)
    return np.log1p(d) / pdf, np.copysign(1 / (1 + d), p - t) / pdf


LOSSES = {
    "l1": l1,
    "l2": l2,
    "relativel1": relative_l1,
    "mape": mape,
    "smape": smape,
    "relativel2": relative_l2,
    "relativel2luminance": relative_l2_luminance,
    "crossentropy": cross_entropy,
    "variance": variance,
    "huber": huber,
    "logl1": log_l1,
}
