"""Volume rendering of tensors: values and gradients, and a loop as nerfacc has it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

from numbanet.torch import volumes  # noqa: E402
from numbanet.volumes import Camera  # noqa: E402

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def ball(positions):
    return 20.0 * (positions.norm(dim=1, keepdim=True) < 0.5)


@pytest.fixture
def grid():
    made = volumes.OccupancyGrid(BOX, 16)
    made.update(ball, threshold=1.0)
    return made


@pytest.fixture
def rays():
    camera = Camera.looking((0, 0, 0), (2, 1, 0.5), 8, 6)
    return tuple(torch.from_numpy(each) for each in camera.rays())


def rendered(samples, densities, colours, background):
    """The formula of compositing, by PyTorch's own operations, in float64."""
    seen = []
    for i in range(samples.n_rays):
        here = samples.rays == i
        lengths = (samples.ends - samples.starts)[here].double()
        depths = densities[here].double() * lengths
        light = torch.exp(-torch.cumsum(torch.cat([depths.new_zeros(1), depths]), 0))
        weights = light[:-1] * (1 - torch.exp(-depths))
        seen.append((weights[:, None] * colours[here]).sum(0) + light[-1] * background[i])
    return torch.stack(seen)


def test_gradients_are_those_of_the_formula(grid, rays):
    samples = grid.march(*rays, 0.05, stratified=True)
    assert len(samples) > 50
    assert samples.rays.dtype == torch.int64
    middles = (samples.starts + samples.ends)[:, None] / 2
    along = rays[0][samples.rays] + middles * rays[1][samples.rays]
    torch.testing.assert_close(samples.positions, along, atol=1e-5, rtol=0)
    generator = torch.Generator().manual_seed(0)
    n = len(samples)
    densities = torch.rand(n, generator=generator).mul(3).requires_grad_()
    colours = torch.rand(n, 3, generator=generator).requires_grad_()
    background = torch.rand(48, 3, generator=generator).requires_grad_()
    weights = torch.rand(48, 3, generator=generator)
    inputs = densities, colours, background
    seen, opacities, depths = volumes.composite(samples, *inputs, least=0.0)
    wanted = rendered(samples, *inputs)
    torch.testing.assert_close(seen.double(), wanted, atol=2e-6, rtol=0)
    assert ((opacities >= 0) & (opacities <= 1)).all()
    assert (depths[opacities > 0] > 0).all()
    mine = torch.autograd.grad((seen * weights).sum(), inputs)
    theirs = torch.autograd.grad((wanted * weights).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    again = volumes.composite(samples, *inputs, least=0.0)
    (a, b), (c, d) = (
        torch.autograd.grad(each, (densities, colours), allow_unused=True, retain_graph=True)
        for each in (again[1].sum(), again[2].sum())
    )
    assert a.abs().sum() > 0 < c.abs().sum()
    assert not b.any()
    assert not d.any()


def test_hidden_samples_are_left_out(grid, rays):
    samples = grid.march(*rays, 0.02)
    densities = torch.full((len(samples), 1), 60.0, dtype=torch.float64)
    kept, sources = volumes.visible(samples, densities)
    assert 0 < len(kept) < len(samples)
    assert torch.equal(samples.starts[sources], kept.starts)
    colours = torch.ones(len(kept), 2, dtype=torch.float16)
    seen, _, _ = volumes.composite(kept, densities[sources], colours, torch.zeros(2))
    assert seen.dtype == torch.float32
    assert seen.max() == pytest.approx(1, abs=1e-3)


def test_a_loop_learns_a_colour(grid, rays):
    """As in docs/howto/radiance_fields.md, with a model of one number."""
    shade = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([shade], lr=0.1)
    for _ in range(60):
        samples = grid.march(*rays, 0.05, stratified=True)
        colours = shade.sigmoid().expand(len(samples), 3)
        seen, opacities, _ = volumes.composite(samples, ball(samples.positions), colours)
        target = opacities[:, None] * torch.tensor([0.2, 0.5, 0.9])
        optimizer.zero_grad()
        (seen - target).square().mean().backward()
        optimizer.step()
    np.testing.assert_allclose(shade.sigmoid().detach(), [0.2, 0.5, 0.9], atol=0.02)


def test_what_does_not_fit(grid, rays):
    samples = grid.march(*rays, 0.05)
    n = len(samples)
    with pytest.raises(ValueError, match="densities"):
        volumes.composite(samples, torch.ones(n - 1), torch.ones(n, 3))
    with pytest.raises(ValueError, match="colours"):
        volumes.composite(samples, torch.ones(n), torch.ones(n))
    with pytest.raises(ValueError, match="directions"):
        grid.march(rays[0], rays[1][1:], 0.05)
    with pytest.raises(ValueError, match="device"):
        volumes.OccupancyGrid(BOX, 8, device="meta")


def test_changes_before_the_gradients_are_noticed(grid, rays):
    samples = grid.march(*rays, 0.05)
    densities = torch.ones(len(samples), requires_grad=True)
    colours = torch.ones(len(samples), 3, requires_grad=True)
    seen, _, _ = volumes.composite(samples, densities, colours)
    with torch.no_grad():
        colours.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        seen.sum().backward()


@pytest.mark.parametrize("background", [torch.ones(7, 3), torch.ones(2), torch.ones(()), (1, 1, 1)])
def test_backgrounds_that_do_not_fit(grid, rays, background):
    samples = grid.march(*rays, 0.05)
    n = len(samples)
    with pytest.raises(ValueError, match="background"):
        volumes.composite(samples, torch.ones(n), torch.ones(n, 3), background)
