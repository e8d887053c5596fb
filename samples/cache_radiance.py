"""Cache radiance while a path tracer runs: a network learns what surfaces reflect, and ends paths.

    python samples/cache_radiance.py [FRAMES]

A box with a lamp in its ceiling and a ball, all diffuse. Each frame traces paths from the camera
and trains the network at their vertices: with the light of the lamp, and that of one more bounce as
the network itself knows it. So light travels one bounce further with each frame. An image needs
one bounce and a look into the cache then, where paths go on for many.

Mueller et al. 2021, Real-time Neural Radiance Caching for Path Tracing: the encoding NRC, the loss
relative to luminance, the reflectance as a factor, and training by what was learned before.
"""

import sys

import numpy as np

import numbanet

N_PATHS, N_BOUNCES, MOST_BOUNCES = 1 << 11, 3, 16
SIZE = 32  # of the image, in pixels
CONFIG = {
    "loss": {"otype": "RelativeL2Luminance"},
    "optimizer": {"otype": "EMA", "decay": 0.9, "nested": {"otype": "Adam", "learning_rate": 5e-3}},
    "encoding": {"otype": "NRC", "n_frequencies": 6},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": 2},
}
CENTRE, RADIUS = np.float32([0.62, 0.3, 0.4]), np.float32(0.22)
LAMP, EMISSION = np.float32(0.15), np.float32([18.0, 15.0, 12.0])  # half a side, in mid-ceiling
WHITE, RED, GREEN = (np.float32(c) for c in ([0.75] * 3, [0.7, 0.15, 0.1], [0.15, 0.6, 0.15]))


def intersect(origins, directions):
    """The next surface along rays: points, normals, reflectances, and emission, [n, 3] each."""
    with np.errstate(divide="ignore"):
        distances = (np.where(directions > 0, 1, 0) - origins) / directions
    distances[~np.isfinite(distances)] = np.inf
    axis = distances.argmin(axis=1)
    rows = np.arange(len(axis))
    distance, side = distances[rows, axis], directions[rows, axis] > 0
    normals, reflectances = np.zeros_like(origins), np.tile(WHITE, (len(axis), 1))
    normals[rows, axis] = np.where(side, -1, 1)
    reflectances[(axis == 0) & ~side], reflectances[(axis == 0) & side] = RED, GREEN
    to_centre = origins - CENTRE
    half = (to_centre * directions).sum(axis=1)
    root = half**2 - (to_centre**2).sum(axis=1) + RADIUS**2
    near = -half - np.sqrt(np.maximum(root, 0))
    on_ball = (root > 0) & (near > 1e-4) & (near < distance)
    points = np.clip(origins + np.where(on_ball, near, distance)[:, None] * directions, 0, 1)
    normals[on_ball] = (points[on_ball] - CENTRE) / RADIUS
    reflectances[on_ball] = WHITE
    is_lamp = (axis == 1) & side & ~on_ball & (np.abs(points[:, ::2] - 0.5) < LAMP).all(axis=1)
    return points, normals, reflectances, np.where(is_lamp[:, None], EMISSION, np.float32(0))


def bounce(rng, normals):
    """Directions around normals, with the cosine as density: [n, 3]."""
    found = rng.normal(size=normals.shape).astype(np.float32)
    found = normals + found / np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def lit(rng, points, normals):
    """Light of the lamp that a white surface would send on, from one place on the lamp: [n, 3]."""
    on_lamp = 0.5 + LAMP * rng.uniform(-1, 1, points.shape).astype(np.float32)
    on_lamp[:, 1] = 1
    way = on_lamp - points
    square = np.maximum((way**2).sum(axis=1, keepdims=True), 1e-6)
    way /= np.sqrt(square)
    cosines = np.maximum((normals * way).sum(axis=1, keepdims=True), 0) * way[:, 1:2]
    is_seen = intersect(points + 1e-4 * normals, way)[3] > 0
    return is_seen * EMISSION * cosines / square * (2 * LAMP) ** 2 / np.pi


def vertex(hit, directions):
    """What the cache is asked with; all is equally rough here: [n, 11]."""
    points, normals, reflectances, _ = hit
    angles = []
    for each in (directions, normals):
        angles += [np.arctan2(each[:, 1], each[:, 0]) / (2 * np.pi) + 0.5, each[:, 2] / 2 + 0.5]
    rough = np.ones(len(points), np.float32)
    return np.column_stack([points, *angles, rough, reflectances])


def reflected(model, hit, directions):
    """Light that a surface sends on: the network's output times the reflectance."""
    return hit[2] * np.maximum(np.asarray(model(vertex(hit, directions))), 0)


def camera_rays(rng, n_per_pixel):
    """Rays through all pixels, from in front of the box: n_per_pixel * SIZE^2 of them."""
    y, x = np.mgrid[:SIZE, :SIZE].reshape(2, -1).repeat(n_per_pixel, axis=1)
    y, x = (np.stack([y, x]) + rng.random((2, x.size))) / SIZE
    origins = np.tile(np.float32([0.5, 0.5, 0.999]), (x.size, 1))
    directions = (np.column_stack([x, 1 - y, np.zeros(x.size)]) - origins).astype(np.float32)
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def learn(n_frames, rng, report=lambda frame, loss: None):
    """A model; each frame follows paths from the camera and makes a step at their vertices."""
    model = numbanet.create_from_config(n_input_dims=11, n_output_dims=3, config=CONFIG)
    for k in range(n_frames):
        origins, directions = camera_rays(rng, N_PATHS // SIZE**2)
        hit = intersect(origins, directions)
        for _ in range(N_BOUNCES):
            inputs, (points, normals, *_) = vertex(hit, directions), hit
            directions = bounce(rng, normals)
            hit = intersect(points + 1e-4 * normals, directions)
            light = lit(rng, points, normals) + reflected(model, hit, directions)
            loss = model.trainer.training_step(inputs, light)
        report(k, loss)
    return model


def image(rng, n_per_pixel, n_bounces, model=None):
    """The mean over paths of so many bounces, which end in the cache if there is a model."""
    origins, directions = camera_rays(rng, n_per_pixel)
    light, weights = intersect(origins, directions)[3], np.ones_like(origins)
    for k in range(n_bounces + 1):
        points, normals, reflectances, _ = hit = intersect(origins, directions)
        if k == n_bounces and model is not None:
            light += weights * reflected(model, hit, directions)
        else:
            weights *= reflectances
            light += weights * lit(rng, points, normals)
        origins, directions = points + 1e-4 * normals, bounce(rng, normals)
    return light.reshape(SIZE, SIZE, n_per_pixel, 3).mean(axis=2)


def relative_errors(model, rng, n_per_pixel=4):
    """Mean squared errors of images by paths to their end, and by one bounce and the cache."""
    exact = image(rng, 128, MOST_BOUNCES)
    found = image(rng, n_per_pixel, MOST_BOUNCES), image(rng, n_per_pixel, 1, model)
    return [np.mean((each - exact) ** 2) / np.mean(exact**2) for each in found]


def main():
    n_frames, rng = int(dict(enumerate(sys.argv)).get(1, 100)), np.random.default_rng(0)

    def report(k, loss):
        if k % 25 == 0:
            print(f"frame {k:4}   loss {loss:.4f}")

    to_the_end, cached = relative_errors(learn(n_frames, rng, report), rng)
    print(f"relative error of 4 paths a pixel: to their end {to_the_end:.4f}, cached {cached:.4f}")


if __name__ == "__main__":
    main()
