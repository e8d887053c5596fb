"""Training steps of a radiance field from views.

A step takes random pixels of all views, marches their rays through the occupancy grid, asks the
head for densities, leaves out what no light reaches, asks the head for colours, composites, and
differentiates all this: compositing gives the gradients of densities and colours, a step of the
head for colours those of the features, and these with those of the densities make the step of the
other head. How many rays there are follows from how many samples the last ones had.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.app.fields.field import RadianceField
from numbanet.app.fields.field_jobs import N_INPUTS, measure, split_gradients, step_gains
from numbanet.app.fields.views import RandomRays, Views
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget
from numbanet.volumes import Camera, composite, composite_backward, visible

BACKGROUNDS = {"white": 1.0, "black": 0.0}  # and "random"
UPDATE_EVERY = 16  # steps, of the grid and of the number of rays
WHOLE_UPDATES = 16  # before only a part of the cells is asked for
N_PARTS = 4
MOST_RAYS, LEAST_RAYS = 1 << 17, 64
MORE = 4  # samples that are marched, for each that light reaches
GRADIENT_SCALE = 1.0 / 16  # of a ray; Adam does not mind, and sums in halves stay finite
GAIN_RATE = 5e-3
LAST_RATE = 0.1  # of the first learning rate


@dataclass(frozen=True)
class RayLosses:
    """Loss of a step: the mean squared error of its rays, read on demand."""

    losses: Any
    target: AbstractTarget

    def __float__(self) -> float:
        return float(self.target.to_host(self.losses).mean())


class FieldLearner:
    """Trainer of a radiance field from views.

    Args:
        field: is trained in place.
        views: for training, on the field's target.
        batch_size: samples of a step that light reaches, about.
        background: "white", "black" or "random", behind pictures that have an opacity.
        seed: of the rays.
        exposure: whether each camera has gains of its own, which are learned too.
        n_steps: after which the learning rate is LAST_RATE of the first one.
    """

    def __init__(
        self, field: RadianceField, views: Views, *, batch_size: int, background: str = "random",
        seed: int = 1337, exposure: bool = False, n_steps: int = 1000,
    ):  # fmt: skip
        self.field, self.views, self.target = field, views, field.target
        self.batch_size, self.background, self.exposure = batch_size, background, exposure
        self.n_steps, self.rng = n_steps, Pcg32(seed)
        along = field.config["n_steps"] * field.grid.n_levels
        n_rays = min(max(batch_size // along, LEAST_RAYS), MOST_RAYS)
        self.steps_done, self.n_rays, self.n_samples, self.all_rays = 0, n_rays, 0, 0
        self._last_total: Any = None
        self._last_kept = 0
        self.gains = self.target.zeros(len(views), 3)
        self.gain_moments = self.target.zeros(3 * len(views), 2)
        self._rooms: dict[str, Any] = {}
        self.heads = field.density, field.colour
        self._rates = [head.trainer.learning_rate for head in self.heads]

    @property
    def on_cpu(self) -> bool:
        """Whether the target is the CPU, where each step allocates arrays of exact sizes."""
        return self.field.kind == "cpu"

    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Render the field in its present state, float32 [height, width, 3] in [0, 1]."""
        return self.field.picture(camera, width, height, self.shown_background)

    @property
    def shown_background(self) -> tuple[float, float, float]:
        """Background of rendered pictures; white where training draws it at random."""
        return (BACKGROUNDS.get(self.background, 1.0),) * 3

    def last_kept(self) -> int:
        """Samples that light reached in the last step; a GPU is waited for."""
        if self._last_total is not None:
            self._last_kept = int(self.target.to_host(self._last_total)[1])
        return self._last_kept

    @property
    def samples_per_step(self) -> float:
        """Samples that light reached, on average; on a GPU, the first steps are waited for."""
        counted = max(self.steps_done - 1, 0) // UPDATE_EVERY * UPDATE_EVERY
        return self.n_samples / counted if counted else float(self.last_kept())

    def go_on(
        self, steps_done: int, n_rays: int, all_rays: int, n_samples: int, last_kept: int
    ) -> None:
        """Continue the counters of another learner of the same job; n_rays is 0 before a step."""
        self.steps_done, self.n_rays = steps_done, n_rays or self.n_rays
        self.all_rays, self.n_samples, self._last_kept = all_rays, n_samples, last_kept
        if steps_done > UPDATE_EVERY:
            self.field.show_grid()
        self._set_rate((steps_done - 1) // UPDATE_EVERY * UPDATE_EVERY)

    def step(self) -> RayLosses:
        """Make a step, queued on a GPU; reading the loss waits for it."""
        if self.steps_done % UPDATE_EVERY == 0:
            self._follow()
        rays = self.views.random_rays(self.rng, self._room_for_rays())
        samples, sources, features = self._lit_samples(rays)
        densities, inputs = self._room(
            "joined",
            lambda: (self.target.empty(len(samples)), self.target.zeros(len(samples), N_INPUTS)),
        )
        field, target = self.field, self.target
        field.joined(samples, sources, features, rays.directions, (densities, inputs))
        shades = field.colour.network(
            inputs, out=self._room("shades", lambda: target.empty(len(samples), 3))
        )
        backgrounds = self._backgrounds(len(rays.offsets))
        seen = composite(samples, densities, shades, backgrounds)
        dl_dseen, losses = self._measured(rays, seen.colours, backgrounds)
        dl_ddensities, dl_dshades = composite_backward(
            seen, dl_dseen, out=self._room("gradients", lambda: (
                target.empty(len(samples)), target.empty(len(samples), 3)
            )),
        )  # fmt: skip
        self._train(samples, inputs, densities, dl_ddensities, dl_dshades)
        self.steps_done += 1
        self.all_rays += self.n_rays
        return RayLosses(losses, target)

    def _room(self, name: str, make: Any) -> Any:
        """Arrays that are allocated once on a GPU, so that steps can be replayed as graphs."""
        if self.on_cpu:
            return make()
        if name not in self._rooms:
            self._rooms[name] = make()
        return self._rooms[name]

    def _room_for_rays(self) -> RandomRays:
        n = self.n_rays
        if self.on_cpu:
            return RandomRays.room(self.target, n)
        return self._room("rays", lambda: RandomRays.room(self.target, MOST_RAYS)).first(n)

    def _lit_samples(self, rays: RandomRays) -> tuple[Any, Any, Any]:
        """Samples that light reaches, their indices among all, and the features of all."""
        field, options = self.field, {"offsets": rays.offsets}
        if self.on_cpu:
            samples = field.march(rays.origins, rays.directions, **options)
            densities, features = field.densities(samples.positions)
            return *visible(samples, densities), features
        most = MORE * self.batch_size
        room = self._rooms.get("samples", most)
        samples = field.march(rays.origins, rays.directions, room=room, **options)
        features = self._room("features", lambda: self.target.empty(most, 16))
        densities, features = field.densities(samples.positions, features)
        room = self._rooms.get("lit", self.batch_size)
        lit, sources = visible(samples, densities, room=room)
        self._rooms.update(samples=samples, lit=(lit, sources))
        return lit, sources, features

    def _backgrounds(self, n: int) -> Any:
        if self.background == "random":
            return self.rng.uniform(3 * n, self.target).reshape(n, 3)
        return self._rooms_on_both(
            f"background {n}", np.full((n, 3), BACKGROUNDS[self.background], np.float32)
        )

    def _rooms_on_both(self, name: str, values: np.ndarray) -> Any:
        if name not in self._rooms:
            self._rooms[name] = self.target.from_host(values)
        return self._rooms[name]

    def _measured(self, rays: RandomRays, colours: Any, backgrounds: Any) -> tuple[Any, Any]:
        """Gradients of colours [n, 3], and losses of rays [n]."""
        n, target = colours.shape[0], self.target
        dl_dcolours, losses = target.empty(n, 3), target.empty(n)
        measure(
            target, n, colours, rays.colours, backgrounds, self.gains, rays.cameras,
            GRADIENT_SCALE, losses, dl_dcolours,
        )  # fmt: skip
        if self.exposure:
            step_gains(
                target, 3 * len(self.views), n, colours, dl_dcolours, rays.cameras, GAIN_RATE,
                self.gains, self.gain_moments,
            )  # fmt: skip
        return dl_dcolours, losses

    def _train(self, samples, inputs, densities, dl_ddensities, dl_dshades) -> None:
        field, target, n = self.field, self.target, len(samples)
        dl_dinputs, dl_dfeatures = self._room(
            "heads", lambda: (target.empty(n, N_INPUTS), target.empty(n, 16))
        )
        field.colour.trainer.training_step(
            inputs, None, external_dl_dy=dl_dshades, dl_dinput=dl_dinputs
        )
        split_gradients(
            target, n, samples.total, densities, dl_ddensities, dl_dinputs, dl_dfeatures
        )
        field.density.trainer.training_step(samples.positions, None, external_dl_dy=dl_dfeatures)
        self._last_total = samples.total

    def _follow(self) -> None:
        """Update the grid, the learning rate and the number of rays."""
        field = self.field
        k = self.steps_done // UPDATE_EVERY
        if k > 0:
            self.n_samples += UPDATE_EVERY * self.last_kept()  # as in the last step
            self._fit_rays()
            whole = k <= WHOLE_UPDATES
            field.update_grid(self.rng, *((0, 1) if whole else (k % N_PARTS, N_PARTS)))
        self._set_rate(self.steps_done)

    def _set_rate(self, step: int) -> None:
        """Set the learning rate of a step, which decays exponentially."""
        done = min(step / max(self.n_steps, 1), 1.0)
        for head, rate in zip(self.heads, self._rates, strict=True):
            head.trainer.learning_rate = rate * LAST_RATE**done

    def _fit_rays(self) -> None:
        """Set the number of rays so that light reaches about batch_size of their samples."""
        more = 0.95 * self.batch_size / max(self.last_kept(), 1)
        if not self.on_cpu and "samples" in self._rooms:
            _, marched = self.target.to_host(self._rooms["samples"].total)
            more = min(more, 0.95 * MORE * self.batch_size / max(int(marched), 1))
        n_rays = int(self.n_rays * min(more, 4.0))
        self.n_rays = min(max(n_rays, LEAST_RAYS), MOST_RAYS)
