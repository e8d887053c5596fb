"""The sample configs, read without numbanet, which they also judge."""

import json
import re
from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "samples"
IMAGE = SAMPLES / "images" / "astronaut.png"
NAMES = "config_hash", "config_oneblob"


def sample(name):
    text = (SAMPLES / "configs" / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(re.sub(r"//.*", "", text))


HASH, ONE_BLOB = map(sample, NAMES)
_ADAM = HASH["optimizer"]
# the same in both configs, but for epsilon and the decay, which a job has
LEARNING_RATE, BETA1, BETA2 = (_ADAM[name] for name in ("learning_rate", "beta1", "beta2"))
LOSS_EPSILON = 0.01  # of RelativeL2
