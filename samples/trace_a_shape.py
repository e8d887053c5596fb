"""Learn a shape and look at it: a trained model called from a kernel of one's own. Needs a GPU.

    python samples/trace_a_shape.py [STEPS] [PICTURES]

The model learns the signed distance to a shape. The kernel walks along the ray of each pixel, as
far at each step as the model says that nothing is near, and shades what it meets. The distances
never leave the GPU's registers; `network.inference` would need a launch and a copy for every step.
"""

import math
import sys

import numpy as np
from numba import cuda, float32
from PIL import Image

import numbanet

CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
    "encoding": {
        "otype": "HashGrid", "n_levels": 8, "log2_hashmap_size": 15, "base_resolution": 8,
        "per_level_scale": 1.4,
    },
    "network": {"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": 2},
}  # fmt: skip
BLOCK = (16, 8)  # pixels: rays of a warp stay close to each other
N_STEPS, NEAR = 64, np.float32(2e-3)
ALL_LANES = 0xFFFFFFFF
ZERO, HALF, ONE, TWO = (np.float32(value) for value in (0, 0.5, 1, 2))
CAUTION = np.float32(0.9)  # what was learned may be a little too large
OFFSET = np.float32(8e-3)  # between the points that a normal is computed from


def distance(points):
    """The signed distance of points [n, 3] to a ring around a ball, in the unit cube."""
    x, y, z = (points - 0.5).T
    ball = np.sqrt(x**2 + y**2 + z**2) - 0.16
    ring = np.hypot(np.hypot(x, y) - 0.32, z) - 0.07
    return np.minimum(ball, ring)[:, None]


def learn(device="cuda", config=CONFIG, n_steps=1000, batch_size=1 << 14):
    """A model of the shape."""
    model = numbanet.create_from_config(3, 1, config, device=device)
    rng = np.random.default_rng(1)
    for _ in range(n_steps):
        points = rng.random((batch_size, 3), np.float32)
        model.trainer.training_step(points, distance(points))
    return model


def camera(angle):
    """Eye, middle of the picture, and half of its width and height, float32 [4, 3]."""
    towards = np.array([math.cos(angle), math.sin(angle), -0.6]) / math.hypot(1, 0.6)
    right = np.cross(towards, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, towards)
    return np.array([0.5 - 1.5 * towards, towards, 0.4 * right, 0.4 * up], np.float32)


def tracer(network):
    """A kernel (params, camera, image): brightness and depth of each pixel, [height, width, 2]."""
    functions = network.device_functions(threads_per_block=math.prod(BLOCK))
    load, infer = functions.load, functions.infer

    def trace(params, camera, image):
        load(params)
        column, row = cuda.grid(2)
        height, width = image.shape[:2]
        is_pixel = row < height and column < width
        point, ray = cuda.local.array(3, float32), cuda.local.array(3, float32)
        value, beside = cuda.local.array(1, float32), cuda.local.array(1, float32)
        u = TWO * (np.float32(column) + HALF) / np.float32(width) - ONE
        v = ONE - TWO * (np.float32(row) + HALF) / np.float32(height)
        square = ZERO
        for d in range(3):
            ray[d] = camera[1, d] + u * camera[2, d] + v * camera[3, d]
            square += ray[d] * ray[d]
        depth, last = ZERO, np.float32(1e9)
        for d in range(3):  # where the ray enters the cube and leaves it
            ray[d] /= math.sqrt(square)
            inverse = ONE / (ray[d] if abs(ray[d]) > np.float32(1e-6) else np.float32(1e-6))
            low, high = -camera[0, d] * inverse, (ONE - camera[0, d]) * inverse
            depth, last = max(depth, min(low, high)), min(last, max(low, high))
        is_on_its_way, is_hit = is_pixel and depth < last, False
        for _ in range(N_STEPS):
            if not cuda.any_sync(ALL_LANES, is_on_its_way):  # a warp goes on as long as one lane
                break
            for d in range(3):
                point[d] = camera[0, d] + depth * ray[d]
            infer(params, point, value)  # all lanes, those that have arrived too
            if is_on_its_way:
                is_hit = value[0] < NEAR
                depth += ZERO if is_hit else CAUTION * value[0]
                is_on_its_way = not is_hit and depth < last
        square, shade = np.float32(1e-20), ZERO
        for d in range(3):
            point[d] += OFFSET
            infer(params, point, beside)
            point[d] -= OFFSET
            normal = beside[0] - value[0]
            square += normal * normal
            shade -= normal * ray[d]  # the light is where the eye is
        if is_pixel:
            image[row, column, 0] = max(shade / math.sqrt(square), ZERO) if is_hit else ZERO
            image[row, column, 1] = depth if is_hit else ZERO

    return functions.kernel(trace, BLOCK)


def picture(network, kernel, view, height, width):
    """What a camera sees, on the GPU."""
    image = network.target.empty(height, width, 2)
    grid = -(-width // BLOCK[0]), -(-height // BLOCK[1])
    kernel(grid, network.kernel_params(), network.target.from_host(view), image)
    return image


if __name__ == "__main__":
    n_steps, n_pictures = (int(value) for value in [*sys.argv[1:3], "1000", "24"][:2])
    network = learn(n_steps=n_steps).network
    kernel = tracer(network)
    angles = np.linspace(0, 2 * np.pi, n_pictures, endpoint=False)
    images = [picture(network, kernel, camera(angle), 512, 512).numpy() for angle in angles]
    frames = [Image.fromarray((255 * image[:, :, 0]).astype(np.uint8)) for image in images]
    frames[0].save("shape.gif", save_all=True, append_images=frames[1:], duration=80, loop=0)
    print(f"wrote shape.gif: {n_pictures} pictures of what {n_steps} steps have learned")
