"""Learn a photograph by hand: the whole of numbanet's public interface in one page.

    python samples/learn_an_image.py [IMAGE] [CONFIG] [STEPS]

The command `numbanet learn-image` does the same with a progress bar, a report and error messages;
this file shows what it takes.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import numbanet
from numbanet.app.image_file import read_photograph

HERE = Path(__file__).parent
BATCH_SIZE = 1 << 14

arguments = dict(enumerate(sys.argv))
image_path = arguments.get(1, HERE / "images/astronaut.png")
config_path = arguments.get(2, HERE / "configs/config_hash.json")
n_steps = int(arguments.get(3, 300))

# 1. Data. Displayed values are gamma-encoded; networks learn linear light, which is what averages
#    and interpolates correctly. A pure power of 2.2 as in tiny-cuda-nn.
photograph = read_photograph(image_path).encoded()  # [height, width, 3] in [0, 1], of any image
linear = photograph**2.2
height, width = photograph.shape[:2]


def colours_at(positions):
    """Linear light at positions (x, y) in [0, 1)^2, interpolated between the pixel centres."""
    x, y = positions[:, 0] * width - 0.5, positions[:, 1] * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    s, t = (x - left)[:, None], (y - top)[:, None]
    columns = np.clip([left, left + 1], 0, width - 1)
    rows = np.clip([top, top + 1], 0, height - 1)
    upper = (1 - s) * linear[rows[0], columns[0]] + s * linear[rows[0], columns[1]]
    lower = (1 - s) * linear[rows[1], columns[0]] + s * linear[rows[1], columns[1]]
    return (1 - t) * upper + t * lower


# 2. Model. A config has four parts, each a JSON object with an "otype" and its options; comments
#    are welcome. A plain dictionary does as well as a file:
#    {"loss": {...}, "optimizer": {...}, "encoding": {...}, "network": {...}}
config = numbanet.load_config(config_path)
model = numbanet.create_from_config(n_input_dims=2, n_output_dims=3, config=config, seed=1337)
print(f"{model.network.n_params} parameters on the {model.network.device}")
for name, view in model.network.named_parameters().items():
    print(f"  {name:24} {list(view.shape)}")

# 3. Training. A step takes inputs [n, 2] and targets [n, 3], any n and any real dtype, and returns
#    a loss that is computed when it is looked at. The first step compiles; the compiled code is
#    kept on disk for the next run.
rng = np.random.default_rng(1337)
learning_rate = model.trainer.learning_rate
started = time.perf_counter()
for step in range(1, n_steps + 1):
    if step == 2:
        print(f"compiled in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
    if step == n_steps * 3 // 4:  # a slower end makes a finer picture; recompiles nothing
        model.trainer.learning_rate = learning_rate / 3
    positions = rng.random((BATCH_SIZE, 2), dtype=np.float32)
    loss = model.trainer.training_step(positions, colours_at(positions))
    if step % 100 == 0:
        print(f"step {step}: loss {float(loss):.5f}")
seconds = time.perf_counter() - started
print(f"{BATCH_SIZE * (n_steps - 1) / seconds / 1e6:.2f} M samples/s, look-ups included")

# 4. Using it. Ask for the colours at all pixel centres, back to displayed values.
x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
centres = np.stack([x.ravel(), y.ravel()], axis=1)
learned = model(centres).reshape(height, width, 3)
learned = np.clip(learned, 0, 1) ** (1 / 2.2)
error = np.mean(np.square(learned - photograph, dtype=np.float64))
print(f"PSNR {-10 * np.log10(error):.2f} dB")

# Derivatives come from the same kernels: how red changes with x and y, at the centre of the image.
print("d red / d (x, y):", model.network.input_gradient(0, np.array([[0.5, 0.5]])))

# 5. Keeping it. A snapshot holds config, parameters and optimizer state, and is only data: loading
#    one never runs code. The loaded model trains on as if nothing had happened.
Image.fromarray((learned * 255 + 0.5).astype(np.uint8)).save("learned.png")
metadata = {"image": str(image_path)}
model.save("learned.safetensors", metadata=metadata)
again = numbanet.load("learned.safetensors")
assert np.array_equal(again(centres[:100]), model(centres[:100]))
print(f"wrote learned.png and learned.safetensors (of {again.metadata['image']})")
