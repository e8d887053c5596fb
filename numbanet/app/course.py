"""Progress of a job: the part of a snapshot that is not the model."""

from dataclasses import dataclass, field

from numbanet.history import History, is_count, is_table

PICTURE_STEPS = tuple(10**k for k in range(1, 10))


@dataclass
class Course(History):
    """History of a training, with the state that its next steps and its report need.

    Args:
        rng_state: of the stream of random numbers.
        pictures: step and name of those that were written.
    """

    rng_state: int = 0
    pictures: list[tuple[int, str]] = field(default_factory=list)

    def is_usable(self) -> bool:
        are_named = is_table(self.pictures, self.step, str) and all(
            name == picture_name(step) for step, name in self.pictures
        )
        is_begun = bool(self.losses) or self.step == 0
        return super().is_usable() and are_named and is_begun and is_count(self.rng_state, 2**64)


def picture_name(step: int) -> str:
    return f"step_{step:06}.png"


def picture_due(step: int) -> bool:
    """Whether a step has a picture: 10, 100, 1000, ..."""
    return step in PICTURE_STEPS
