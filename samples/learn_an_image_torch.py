"""Learn a photograph through PyTorch, as programs written for tinycudann do.

    python samples/learn_an_image_torch.py [IMAGE] [CONFIG] [STEPS]

Needs the `torch` extra. samples/learn_an_image.py does the same without PyTorch.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import numbanet
from numbanet.app.image_file import read_photograph

import numbanet.torch as tcnn  # isort: skip (before PyTorch: see docs/migrating.md, speed)
import torch

HERE = Path(__file__).parent
BATCH_SIZE = 1 << 14

arguments = dict(enumerate(sys.argv))
image_path = arguments.get(1, HERE / "images/astronaut.png")
config_path = arguments.get(2, HERE / "configs/config_hash.json")
n_steps = int(arguments.get(3, 300))

# 1. Data: the photograph in linear light, looked up with bilinear interpolation.
photograph = torch.tensor(read_photograph(image_path).encoded())  # [height, width, 3] in [0, 1]
linear = (photograph**2.2).permute(2, 0, 1)[None]


def colours_at(positions):
    """Linear light at positions (x, y) in [0, 1)^2, [n, 2] -> [n, 3]."""
    grid = (2 * positions - 1)[None, None]
    found = torch.nn.functional.grid_sample(
        linear.to(positions.device), grid, padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


# 2. Model. On a machine with a GPU it lies there and computes in halves; its parameters are one
#    vector, laid out as tinycudann's.
config = numbanet.load_config(config_path)
torch.manual_seed(1337)
model = tcnn.NetworkWithInputEncoding(2, 3, config["encoding"], config["network"])
device = model.params.device
print(model)
print(f"{model.params.numel()} parameters on {device}, outputs are {model.dtype}")

# 3. Training. `model(x)` with a loss of PyTorch's works as with any module:
#        y = model(positions)
#        loss = ((y - targets) ** 2 / (y.detach() ** 2 + 0.01)).mean()
#    `model.loss` is the same in one pass, which is faster. Both can be differentiated.
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-15, fused=True)
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [n_steps * 3 // 4], gamma=1 / 3)
started = time.perf_counter()
for step in range(1, n_steps + 1):
    positions = torch.rand(BATCH_SIZE, 2, device=device)
    loss = model.loss(positions, colours_at(positions), "RelativeL2")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if step == 1:
        print(f"compiled in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
    if step % 100 == 0:
        print(f"step {step}: loss {loss.item():.5f}")
seconds = time.perf_counter() - started
print(f"{BATCH_SIZE * (n_steps - 1) / seconds / 1e6:.2f} M samples/s, look-ups included")

# 4. Using it: the colours at all pixel centres.
height, width = photograph.shape[:2]
y, x = torch.meshgrid(
    (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
)
centres = torch.stack([x.flatten(), y.flatten()], dim=1).to(device)
with torch.inference_mode():
    learned = model(centres).float().cpu().reshape(height, width, 3).clamp(0, 1) ** (1 / 2.2)
error = (learned - photograph).square().mean()
print(f"PSNR {-10 * torch.log10(error):.2f} dB")

# 5. Keeping it, as any module.
Image.fromarray((learned.numpy() * 255 + 0.5).astype(np.uint8)).save("learned.png")
torch.save(model.state_dict(), "learned.pt")
model.load_state_dict(torch.load("learned.pt", weights_only=True))
print("wrote learned.png and learned.pt")
