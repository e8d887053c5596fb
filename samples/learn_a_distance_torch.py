"""Learn the signed distance to a shape from points on its surface: a loss of derivatives.

    python samples/learn_a_distance_torch.py [STEPS]

What is known: the distance is 0 on the surface, and its gradient is the normal there and has length
1 everywhere (the eikonal equation). The gradient enters the loss, so training differentiates twice.
The shape is a rounded box with a ball taken out of a corner, whose distance we can compute to see
how good the learned one is. Needs the `torch` extra.

Gropp et al. 2020, Implicit Geometric Regularization for Learning Shapes.
"""

import sys
import time

import numbanet.torch as tcnn  # isort: skip (before PyTorch: see docs/migrating.md, speed)
import torch

n_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
N_SURFACE, N_SPACE = 1 << 12, 1 << 12
torch.manual_seed(0)

# 1. The scene, in the unit cube.
HALF_SIZES, ROUNDING = torch.tensor([0.24, 0.18, 0.2]), 0.04
BALL, RADIUS = torch.tensor([0.26, 0.2, 0.22]), 0.17


def scene(points):
    """The distance to the surface, negative inside: [n, 3] -> [n]."""
    centred = points - 0.5
    beyond = centred.abs() - HALF_SIZES
    box = beyond.clamp(min=0).norm(dim=1) + beyond.amax(dim=1).clamp(max=0) - ROUNDING
    return torch.maximum(box, RADIUS - (centred - BALL).norm(dim=1))


def gradient_of(function, points, **options):
    """Values [n] and gradients [n, 3]."""
    points = points.requires_grad_()
    values = function(points)
    return values, torch.autograd.grad(values.sum(), points, **options)[0]


def surface_points(n):
    """Random points on the surface, and their normals: found by walking down the distance."""
    points = torch.rand(4 * n, 3)
    for _ in range(8):
        values, normals = gradient_of(scene, points.detach())
        points = points.detach() - values.detach()[:, None] * normals
    found, normals = gradient_of(scene, points)
    is_there = (found.abs() < 1e-4) & ((points > 0) & (points < 1)).all(dim=1)
    return points.detach()[is_there][:n], normals[is_there][:n]


# 2. Model: a smooth grid with a network, which both have second derivatives. float32, since the
#    differences that matter are small.
encoding = {
    "otype": "HashGrid",
    "n_levels": 6,
    "n_features_per_level": 2,
    "log2_hashmap_size": 14,
    "base_resolution": 4,
    "per_level_scale": 1.5,
    "interpolation": "Smoothstep",
}
network = {
    "otype": "FullyFusedMLP",
    "n_neurons": 32,
    "n_hidden_layers": 2,
    "activation": "Softplus",
}
model = tcnn.NetworkWithInputEncoding(3, 1, encoding, network, dtype=torch.float32)
device = model.params.device


def distance(points):
    """The model learns the difference to a ball: so inside and outside are clear from the start."""
    return (points - 0.5).norm(dim=1) - 0.25 + model(points)[:, 0]


# 3. Training.
points, normals = (each.to(device) for each in surface_points(1 << 15))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.9, 0.99), eps=1e-15)
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [n_steps * 3 // 4], gamma=0.2)
started = time.perf_counter()
for step in range(1, n_steps + 1):
    chosen = torch.randint(len(points), (N_SURFACE,), device=device)
    at_surface, gradient = gradient_of(distance, points[chosen], create_graph=True)
    _, elsewhere = gradient_of(distance, torch.rand(N_SPACE, 3, device=device), create_graph=True)
    eikonal = (elsewhere.norm(dim=1) - 1).square().mean()
    loss = 10 * at_surface.abs().mean() + (gradient - normals[chosen]).square().mean() + eikonal
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step == 1:
        print(f"compiled in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
    if step % 100 == 0:
        print(f"step {step}: loss {loss.item():.4f}, of the eikonal equation {eikonal.item():.4f}")
print(f"{(n_steps - 1) / (time.perf_counter() - started):.1f} steps/s")

# 4. How good it is: against the scene's own distance, close to the surface, and for all the cube
#    the share of points that are found on the right side of it.
with torch.no_grad():
    cube = torch.rand(1 << 16, 3)
    truth, learned = scene(cube), distance(cube.to(device)).cpu()
close = truth.abs() < 0.05
print(f"mean error near the surface: {(learned - truth)[close].abs().mean():.4f}")
print(f"points on the right side: {100 * (learned.sign() == truth.sign()).float().mean():.2f} %")
