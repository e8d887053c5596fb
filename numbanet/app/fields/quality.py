"""Similarity of two pictures: PSNR and SSIM."""

import numpy as np

WINDOW, SPREAD = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03


def blurred(image: np.ndarray) -> np.ndarray:
    """Gaussian-weighted means of [height, width, ...], only where the whole window fits."""
    at = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (at / SPREAD) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        n = image.shape[axis] - WINDOW + 1
        parts = (np.take(image, range(k, k + n), axis) * w for k, w in enumerate(weights))
        image = sum(parts)
    return image


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two pictures in [0, 1], [height, width, 3].

    Wang et al. 2004, with a Gaussian window of 11 x 11 and no downsampling; the mean over all
    windows and channels. Pictures smaller than the window have that of one window of theirs.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    if min(a.shape[:2]) < WINDOW:

        def mean(image):
            return image.mean(axis=(0, 1))
    else:
        mean = blurred
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    return float(np.mean(light * structure))
