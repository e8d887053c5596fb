"""Computed tomography: a network learns a volume from its projections alone.

    python samples/reconstruct_a_phantom.py [STEPS] [VIEWS]

A phantom of ellipses is seen from some angles, as in a scanner with parallel rays: each detector
pixel measures the integral of the density along its ray. The network gives densities; the loss
compares its own integrals, sums over points of the rays, with the measured ones. That loss is not
one of a point, so its gradient is computed here and goes to the trainer as `external_dl_dy`. The
result is compared with filtered back projection, the classical way.
"""

import sys

import numpy as np
from PIL import Image

import numbanet

CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 5e-3, "epsilon": 1e-15},
    "encoding": {
        "otype": "HashGrid", "n_levels": 6, "log2_hashmap_size": 12, "base_resolution": 4,
        "per_level_scale": 1.6,
    },
    "network": {
        "otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 2,
        "output_activation": "Softplus",  # densities are not negative
    },
}  # fmt: skip
ELLIPSES = (  # density, half axes, centre, angle
    (1.0, 0.40, 0.30, 0.0, 0.00, 0.3),
    (-0.7, 0.36, 0.26, 0.0, 0.00, 0.3),
    (0.4, 0.10, 0.16, -0.14, 0.03, -0.3),
    (0.5, 0.07, 0.07, 0.15, 0.08, 0.0),
    (0.3, 0.05, 0.12, 0.10, -0.10, 0.9),
    (0.6, 0.03, 0.03, -0.02, -0.15, 0.0),
)
N_PIXELS = 128  # of the detector, and along each side of the picture
N_RAYS, N_ALONG = 512, 64  # of a step, and points along a ray
HALF = 0.5  # the object fits a circle of this radius


def phantom(points):
    """The density at points [n, 2] around the origin."""
    density = np.zeros(len(points))
    for value, a, b, x, y, angle in ELLIPSES:
        c, s = np.cos(angle), np.sin(angle)
        u, v = points[:, 0] - x, points[:, 1] - y
        density += value * (((c * u + s * v) / a) ** 2 + ((c * v - s * u) / b) ** 2 < 1)
    return density


def along_rays(angles, offsets, depths):
    """Points [n_rays, n_depths, 2] of rays at some offsets from the centre."""
    across = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    forward = np.stack([-np.sin(angles), np.cos(angles)], axis=-1)
    return offsets[:, None, None] * across[:, None] + depths[..., None] * forward[:, None]


def measure(angles):
    """The projections [n_views, N_PIXELS]: integrals along rays."""
    offsets = ((np.arange(N_PIXELS) + 0.5) / N_PIXELS - 0.5) * 2 * HALF
    depths = ((np.arange(1024) + 0.5) / 1024 - 0.5) * 2 * HALF
    rows = []
    for angle in angles:
        rays = along_rays(np.full(N_PIXELS, angle), offsets, depths[None].repeat(N_PIXELS, 0))
        rows.append(phantom(rays.reshape(-1, 2)).reshape(N_PIXELS, -1).mean(axis=1) * 2 * HALF)
    return np.array(rows), offsets


def learn(projections, offsets, angles, n_steps, device="auto"):
    """A model whose integrals are the projections."""
    model = numbanet.create_from_config(2, 1, CONFIG, device=device)
    rng, length = np.random.default_rng(0), 2 * HALF
    for step in range(n_steps):
        model.trainer.learning_rate = 5e-3 * 0.1 ** (step / n_steps)
        view, pixel = rng.integers(len(angles), size=N_RAYS), rng.integers(N_PIXELS, size=N_RAYS)
        parts = (np.arange(N_ALONG) + rng.random((N_RAYS, N_ALONG))) / N_ALONG  # one in each
        shift = (rng.random(N_RAYS) - 0.5) * length / N_PIXELS  # anywhere on the pixel
        points = along_rays(angles[view], offsets[pixel] + shift, (parts - 0.5) * length)
        inputs = (points.reshape(-1, 2) + HALF).astype(np.float32)
        densities = np.asarray(model.network(inputs)).reshape(N_RAYS, N_ALONG)
        error = densities.mean(axis=1) * length - projections[view, pixel]
        # The loss is the mean of error^2; each density has the weight length / N_ALONG.
        dl_dray = 2 * error / N_RAYS * length / N_ALONG
        dl_dy = np.repeat(dl_dray, N_ALONG)[:, None].astype(np.float32)
        model.trainer.training_step(inputs, None, external_dl_dy=dl_dy)
        if step % 100 == 0:
            print(f"step {step}: {np.mean(error**2):.2e}")
    return model


def back_projection(projections, offsets, angles, points):
    """Filtered back projection with a ramp filter (Ram-Lak)."""
    frequencies = np.fft.fftfreq(2 * N_PIXELS, 2 * HALF / N_PIXELS)
    padded = np.pad(projections, ((0, 0), (0, N_PIXELS)))
    filtered = np.fft.ifft(np.fft.fft(padded, axis=1) * np.abs(frequencies), axis=1).real
    total = np.zeros(len(points))
    for row, angle in zip(filtered[:, :N_PIXELS], angles, strict=True):
        total += np.interp(points @ [np.cos(angle), np.sin(angle)], offsets, row)
    return total * np.pi / len(angles)


def psnr(found, true):
    return -10 * np.log10(np.mean((found - true) ** 2) / np.ptp(true) ** 2)


def main(n_steps=1500, n_views=24):
    """Reconstruct, compare, and write a picture; returns both PSNRs in decibels."""
    angles = np.arange(n_views) * np.pi / n_views
    projections, offsets = measure(angles)
    axis = ((np.arange(N_PIXELS) + 0.5) / N_PIXELS - 0.5) * 2 * HALF
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    model = learn(projections, offsets, angles, n_steps)
    true = phantom(points)
    learned = np.asarray(model((points + HALF).astype(np.float32)))[:, 0]
    classical = back_projection(projections, offsets, angles, points)
    quality = psnr(learned, true), psnr(classical, true)
    print(f"{n_views} views: network {quality[0]:.1f} dB, back projection {quality[1]:.1f} dB")
    row = [each.reshape(N_PIXELS, N_PIXELS) for each in (learned, classical, true)]
    picture = np.clip(np.concatenate(row, axis=1) / true.max(), 0, 1)
    Image.fromarray((255 * picture).astype(np.uint8)).resize((1152, 384)).save("phantom.png")
    return quality


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
