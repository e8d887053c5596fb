"""Parts of a module's parameters by name: views of them, or parameters of their own.

A module has one vector of parameters, as tinycudann's have. PyTorch's optimizers tell parameters
apart and not their parts, so that `split_parts` replaces the vector by a tree of parameters, which
each pass joins: autograd gives the gradient of the vector back to them. States are those of the
vector either way.
"""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import torch

from numbanet.composition import Composition
from numbanet.grid_levels import one_or_all
from numbanet.shown import shown
from numbanet.torch import descriptions

PARAMS = "params"


@dataclass(frozen=True, eq=False)
class Part:
    """Part of a module's parameters.

    Attributes:
        name: such as "network.0" or "encoding.levels.3".
        params: a view of it, or the parameter of its own, float32 [rows, columns] for a matrix and
            [entries, features] for a level of a grid. Written to under torch.no_grad() it changes
            the module.
        offset: of its first number in the vector of all.
        resolution: vertices along each dimension of a level, a tuple of them where these differ;
            None for other parts.
    """

    name: str
    params: torch.Tensor
    offset: int
    resolution: int | tuple[int, ...] | None = None


@dataclass(frozen=True)
class Range:
    """Place of a part in the vector of parameters."""

    offset: int
    shape: tuple[int, ...]
    resolution: int | tuple[int, ...] | None = None

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        """View of the part in a vector."""
        n = math.prod(self.shape)
        return vector[self.offset : self.offset + n].view(self.shape)


@cache
def ranges_of(description: str) -> dict[str, Range]:
    """Ranges of a model's parts by name, in their order, grids level by level."""
    composition = Composition.of(*descriptions.components(description))
    grids = {first: (name, grid) for name, grid, first in composition.grids}
    found = {}
    for name, place in composition.places.items():
        if place.start == place.stop:
            continue
        if place.start not in grids:
            shape = (math.prod(place.shape),) if name == PARAMS else place.shape
            found[name] = Range(place.start, shape)  # one part, of an encoding, is the vector
            continue
        before, grid = grids[place.start]
        for k, level in enumerate(grid.levels):
            resolution = one_or_all(grid.vertices(k))
            n = grid.n_features_per_level
            offset, shape = place.start + int(level.offset) * n, (int(level.size), n)
            found[f"{before}levels.{k}"] = Range(offset, shape, resolution)
    return found


class Branch(torch.nn.Module):
    """Parts below a name, saved and loaded by their module as its vector."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        pass

    def _load_from_state_dict(self, *given):
        pass


class ModuleOfParts(torch.nn.Module):
    """Module with one vector, `params`, or with its parts instead."""

    native_tcnn_module: Any
    _split_names: tuple[str, ...] = ()  # of parts that are parameters of their own

    @property
    def _ranges(self) -> dict[str, Range]:
        return ranges_of(self.native_tcnn_module.description)

    @property
    def is_split(self) -> bool:
        """Whether the parts are parameters of their own."""
        return bool(self._split_names)

    def named_parts(self) -> dict[str, Part]:
        """Parts of the parameters by name, in their order: matrices, then tables by level.

        Not one of tinycudann's. Where the module is split, `params` of each is its parameter.
        """
        params = None if self.is_split else self.params
        if params is None or self._ranges.keys() == {PARAMS}:
            tensors = self._leaves() or list(self._parameters.values())
        else:
            tensors = [each.of(params) for each in self._ranges.values()]
        return {
            name: Part(name, tensor, each.offset, each.resolution)
            for (name, each), tensor in zip(self._ranges.items(), tensors, strict=True)
        }

    def split_parts(self) -> "ModuleOfParts":
        """Make each part a parameter of its own, for optimizers with groups of parameters.

        Not one of tinycudann's. Call it before an optimizer, DistributedDataParallel or a compiled
        program has the parameters. `parameters()` are the parts then, `params` is what joins them,
        and states are as before. Each pass copies the parameters once to join them.

        Returns:
            The module itself.
        """
        if self.is_split or not self._ranges.keys() - {PARAMS}:  # which is one part, if any
            return self
        parts, params = self.named_parts(), self._parameters.pop(PARAMS)
        self._split_names = tuple(parts)
        for name, part in parts.items():
            *above, last = name.split(".")
            branch = self
            for each in above:
                if each not in branch._modules:
                    branch.add_module(each, Branch())
                branch = branch._modules[each]
            leaf = torch.nn.Parameter(part.params.detach().clone(), params.requires_grad)
            if params.grad is not None:
                leaf.grad = self._ranges[name].of(params.grad).clone()
            branch.register_parameter(last, leaf)
        return self

    def param_groups(self, options: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Groups of parameters as torch.optim takes them; call split_parts before.

        Not one of tinycudann's.

        Args:
            options: of the optimizer, such as {"encoding.levels.*": {"lr": 1e-2}}, by name of the
                parts; `*`, `?` and `[0-3]` stand for what they do in names of files. A part is in
                the first group that names it, and has the optimizer's own options if none does.

        Raises:
            RuntimeError: the module is not split.
            TypeError: options are no mapping of mappings by name.
            ValueError: a name is that of no part, or of parts that groups before have.
        """
        whole = isinstance(options, Mapping) and all(
            isinstance(key, str) and isinstance(each, Mapping) for key, each in options.items()
        )
        if not whole:
            raise TypeError(
                f"options: expected names with options, such as {{'network.*': {{'lr': 1e-3}}}}, "
                f"got {shown(options)}"
            )
        if not self.is_split and self._ranges.keys() - {PARAMS}:
            raise RuntimeError("the module has one parameter; call its split_parts() before")
        left, groups = self.named_parts(), []
        known = ", ".join(left)
        for pattern, given in options.items():
            if "params" in given:
                raise ValueError(f"options[{pattern!r}]: has 'params', which the parts are")
            names = [name for name in left if fnmatch.fnmatchcase(name, pattern)]
            if not names:
                raise ValueError(
                    f"options: {shown(pattern)} names no part that is left; there are {known:.400}"
                )
            groups.append({"params": [left.pop(name).params for name in names], **given})
        if left:
            groups.append({"params": [part.params for part in left.values()]})
        return groups

    def _leaves(self) -> list[torch.Tensor]:
        return [reduce(getattr, name.split("."), self) for name in self._split_names]

    def __getattr__(self, name: str) -> Any:
        if name == PARAMS and self._split_names:
            return torch.cat([each.reshape(-1) for each in self._leaves()])
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == PARAMS and self.is_split:
            why = "write to its parts under torch.no_grad(), or load a state"
            raise AttributeError(f"params: cannot be replaced, the module is split; {why}")
        super().__setattr__(name, value)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.is_split:
            joined = self.params
            destination[prefix + PARAMS] = joined if keep_vars else joined.detach()

    def _load_from_state_dict(
        self, state_dict, prefix, metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        given = state_dict.get(prefix + PARAMS)
        if self.is_split and given is not None:
            state_dict = {key: each for key, each in state_dict.items() if key != prefix + PARAMS}
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not self.is_split:
            return
        n = self.native_tcnn_module.n_params()
        if given is None:
            if strict:
                missing_keys.append(prefix + PARAMS)
        elif not isinstance(given, torch.Tensor) or tuple(given.shape) != (n,):
            got = list(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
            error_msgs.append(f"{prefix}{PARAMS}: expected a tensor of shape [{n}], got {got}")
        else:
            self._write(given, metadata.get("assign_to_params_buffers", False))

    def _write(self, vector: torch.Tensor, assigned: bool) -> None:
        """Write the parts from a vector; with assign they get its dtype and device too."""
        for each, part in zip(self._ranges.values(), self._leaves(), strict=True):
            values = each.of(vector.detach())
            with torch.no_grad():
                if assigned:
                    part.data = values.clone()
                else:
                    part.copy_(values)
