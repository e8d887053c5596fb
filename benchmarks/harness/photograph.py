"""The photograph that is learnt: batches of positions and colours."""

import numpy as np


class Photograph:
    """An image in linear light that can be looked up anywhere."""

    def __init__(self, path):
        from numbanet.app.image_file import read_photograph  # which needs Pillow

        self.linear = read_photograph(path).linear()

    def look_up(self, positions):
        """Interpolate bilinearly; texel centres lie at (i + 0.5) / size, borders are clamped."""
        height, width, _ = self.linear.shape
        at = positions * np.float32([width, height]) - np.float32(0.5)
        cell = np.floor(at)
        right, down = np.moveaxis((at - cell)[:, :, None], 1, 0)
        x, y = cell.astype(np.int64).T
        x0, x1 = np.clip(x, 0, width - 1), np.clip(x + 1, 0, width - 1)
        y0, y1 = np.clip(y, 0, height - 1), np.clip(y + 1, 0, height - 1)
        image = self.linear
        upper = image[y0, x0] * (1 - right) + image[y0, x1] * right
        lower = image[y1, x0] * (1 - right) + image[y1, x1] * right
        return upper * (1 - down) + lower * down

    def batch(self, n, rng):
        """Return n random positions in [0,1)^2 and their colours."""
        positions = rng.random((n, 2), dtype=np.float32)
        return positions, self.look_up(positions)

    def pixel_centres(self):
        """Return the position of every pixel, row by row."""
        height, width, _ = self.linear.shape
        y, x = np.mgrid[0:height, 0:width]
        centres = np.stack([(x.ravel() + 0.5) / width, (y.ravel() + 0.5) / height], axis=1)
        return centres.astype(np.float32)

    def psnr(self, outputs):
        """Return the peak signal-to-noise ratio in dB: in linear light, and as displayed."""
        truth = self.linear.reshape(-1, 3)
        shown = np.clip(outputs, 0, 1)
        decibels = [
            -10 * np.log10(np.mean((a - b) ** 2, dtype=np.float64))
            for a, b in ((shown, truth), (shown ** (1 / 2.2), truth ** (1 / 2.2)))
        ]
        return tuple(float(value) for value in decibels)
