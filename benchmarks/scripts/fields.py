"""Measure radiance fields: marching and compositing, and how soon a scene is learned.

    python -m benchmarks.scripts.fields [--device auto] [--scenes torus,thin] [--seconds 30]

The parts are timed for rays of a scene's cameras through the grid that its training left, beside
nerfacc's with PyTorch where that can be imported. Training is timed from its second step, with what
evaluations take left out; `--plain` trains the same model a second time without empty space being
skipped. PSNR is the mean over held-out views. Wall clock, a GPU synchronised at both ends; medians.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.harness.machine import machine
from benchmarks.harness.turns import in_turns
from numbanet.app.fields.field import SIZES, RadianceField, config_for
from numbanet.app.fields.field_training import psnr_of
from numbanet.app.fields.learner import FieldLearner
from numbanet.app.fields.scene_data import made_scene
from numbanet.app.fields.scenes import SCENES
from numbanet.app.fields.views import Views
from numbanet.targets import target_for
from numbanet.volumes import composite, composite_backward, visible

CHECKS = 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0  # seconds of training


class PlainLearner(FieldLearner):
    """Samples all along each ray, whatever is there."""

    def _follow(self):
        if self.steps_done:
            self._fit_rays()
        self._set_rate(self.steps_done)


def synchronize(target):
    if target.name != "cpu":
        target.device.synchronize()


def mean_psnr(learner, scene, n_views):
    found = []
    for camera, pixels in list(zip(scene.test.cameras, scene.test.pixels, strict=True))[:n_views]:
        rgba = Views([camera], [pixels], learner.target).colours(0)
        reference = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        picture = learner.picture(camera, camera.width, camera.height)
        found.append(psnr_of(picture, reference))
    return float(np.mean(found))


def train(kind, scene, target, options):
    """The learner, and rows of (seconds, steps, rays, PSNR)."""
    size = SIZES["cpu" if target.name == "cpu" else "cuda"]
    field = RadianceField(config_for(size), 1337, target.name)
    views = Views(scene.train.cameras, scene.train.pixels, field.target)
    learner = kind(field, views, batch_size=size.batch_size, n_steps=options.steps)
    float(learner.step())
    seconds, rows = 0.0, []
    for check in [each for each in CHECKS if each < options.seconds] + [options.seconds]:
        begun, before = time.perf_counter(), seconds
        while seconds < check and learner.steps_done < options.steps:
            for _ in range(5):
                loss = learner.step()
            float(loss)  # all steps are done then
            seconds = before + time.perf_counter() - begun
        psnr = mean_psnr(learner, scene, options.views)
        rows.append((seconds, learner.steps_done, learner.all_rays, psnr))
        print(
            f"  {kind.__name__}: {seconds:6.1f} s  {learner.steps_done:6} steps  "
            f"{learner.all_rays / seconds / 1e3:8.1f} k rays/s  "
            f"{learner.n_samples / seconds / 1e6:6.2f} M lit samples/s  {psnr:.2f} dB  "
            f"occupied {field.grid.occupied().mean():.3f}  rays {learner.n_rays}",
            flush=True,
        )
        if learner.steps_done >= options.steps:
            break
    return learner, rows


def parts(learner, scene, n_rays):
    """Microseconds of marching, of choosing what is lit, and of compositing both ways."""
    field, target = learner.field, learner.target
    rays = learner.views.random_rays(
        learner.rng, type(learner._room_for_rays()).room(target, n_rays)
    )
    origins, directions = rays.origins, rays.directions
    samples = field.march(origins, directions, offsets=rays.offsets)
    densities, _ = field.densities(samples.positions)
    lit, _ = visible(samples, densities)
    lit_densities, _ = field.densities(lit.positions)
    shades, gradient = target.zeros(len(lit), 3), target.zeros(n_rays, 3)
    seen = composite(lit, lit_densities, shades)
    calls = {
        "march": lambda: field.march(origins, directions, offsets=rays.offsets, room=samples),
        "visible": lambda: visible(samples, densities),
        "composite": lambda: composite(lit, lit_densities, shades, out=seen),
        "composite_backward": lambda: composite_backward(seen, gradient),
        "densities": lambda: field.densities(samples.positions),
        "grid update": lambda: field.update_grid(learner.rng),
        **nerfacc_calls(field, origins, directions, seen),
    }

    def timed(call):
        synchronize(target)
        begun = time.perf_counter()
        call()
        synchronize(target)
        return 1e6 * (time.perf_counter() - begun)

    taken = {name: float(np.median(each)) for name, each in in_turns(timed, calls).items()}
    print(f"  {n_rays} rays, {len(samples)} samples, {len(lit)} of them lit")
    for name, each in taken.items():
        print(f"    {name:24} {each:10.1f} us  {n_rays / each:8.2f} M rays/s", flush=True)
    return {"rays": n_rays, "samples": len(samples), "lit": len(lit), "microseconds": taken}


def nerfacc_calls(field, origins, directions, seen):
    """The same with nerfacc's grid and functions, if these can run here."""
    if importlib.util.find_spec("nerfacc") is None or field.kind == "cpu":
        return {}
    import nerfacc
    import torch

    origins, directions = torch.from_dlpack(origins), torch.from_dlpack(directions)
    low, high = field.grid.box
    grid = nerfacc.OccGridEstimator([*low, *high], field.grid.resolution, field.grid.n_levels)
    grid = grid.to(origins.device)
    occupied = torch.from_numpy(field.grid.occupied()).to(origins.device)
    grid.binaries, grid.occs = occupied, occupied.float().flatten()
    samples = seen.samples
    starts, lengths = torch.from_dlpack(samples.starts), torch.from_dlpack(samples.lengths)
    rays = torch.from_numpy(np.asarray(samples.rays).astype(np.int64)).to(origins.device)
    densities = torch.from_dlpack(seen.densities).clone().requires_grad_()
    shades = torch.from_dlpack(seen.shades).clone().requires_grad_()

    def march():
        grid.sampling(origins, directions, render_step_size=field.step)

    def both():
        colours, *_ = nerfacc.rendering(
            starts,
            starts + lengths,
            rays,
            len(origins),
            rgb_sigma_fn=lambda *_: (shades, densities),
        )
        colours.sum().backward()
        torch.cuda.synchronize()

    return {"nerfacc sampling": march, "nerfacc rendering, both": both}


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scenes", default="torus,thin", help=f"of {', '.join(SCENES)}")
    parser.add_argument("--size", type=int, help="of pictures (default: 400, on the CPU 100)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of training, at most")
    parser.add_argument("--steps", type=int, default=5000, help="at most, and of the schedule")
    parser.add_argument("--views", type=int, default=5, help="held-out views that are measured")
    parser.add_argument("--rays", type=int, default=1 << 14, help="of the parts")
    parser.add_argument("--plain", action="store_true", help="train without a grid too")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main():
    options, found = parsed(), {"machine": machine(), "scenes": {}}
    target = target_for(options.device, None)
    size = options.size or (100 if target.name == "cpu" else 400)
    for name in options.scenes.split(","):
        begun = time.perf_counter()
        scene = made_scene(name, target, size, n_test=options.views)
        print(f"{name}: drawn in {time.perf_counter() - begun:.1f} s, {size} x {size}", flush=True)
        learner, rows = train(FieldLearner, scene, target, options)
        found["scenes"][name] = {"training": rows, "parts": parts(learner, scene, options.rays)}
        if options.plain:
            _, found["scenes"][name]["plain"] = train(PlainLearner, scene, target, options)
        if options.json:
            options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
