"""Kill processes while they save a snapshot, and fill the disk that it is saved to.

    python -m benchmarks.scripts.reliability_saves [--kills 100] [--disks 20] [--folder DIR]

Each process does nothing but save, again and again to one place, until SIGKILL ends it at a random
time. The disk is a tmpfs of its own, and left out where the system lets us mount none (as root).
Whatever is not as promised ends the run with a message.
"""

import argparse
import errno
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numbanet

CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam"},
    "encoding": {"otype": "HashGrid", "n_levels": 16, "log2_hashmap_size": 15},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--folder", default=None, help="for the files (default: a temporary one)")
    arguments = parser.parse_args()
    model = numbanet.create_from_config(2, 3, CONFIG, device="cpu")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        kill_saves(model, Path(folder) / "killed.safetensors", arguments.kills)
        fill_disks(model, Path(folder), arguments.disks)


# Kills


def kill_saves(model: numbanet.TrainableModel, path: Path, n: int) -> None:
    seconds = seconds_of_a_save(model, path)
    rng, n_saved, n_parts, n_unseen = random.Random(1), 0, 0, 0
    for _ in range(n):
        completed = n_saved + killed_process(model, path, n_saved, rng.uniform(0, 3 * seconds))
        n_parts += len(leftovers(path))
        stored = numbanet.load(path, device="cpu").metadata["n_saves"]
        check(stored in (completed, completed + 1), f"{stored} saves, expected {completed}")
        n_unseen += stored - completed
        n_saved = stored
    model.save(path, {"n_saves": n_saved})
    left = leftovers(path)
    check(left == [], f"files are left: {left}")
    print(
        f"{n} processes killed while saving {path.stat().st_size / 1e6:.1f} MB "
        f"({1e3 * seconds:.0f} ms a save), after {n_saved} whole saves:\n"
        f"  the file could be loaded after {n} of {n} kills, and was the last one saved\n"
        f"  {n_parts} kills left a part file, {n_unseen} came after the file had been replaced\n"
        f"  files left after one more save: {len(left)}"
    )


def seconds_of_a_save(model: numbanet.TrainableModel, path: Path) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        model.save(path, {"n_saves": 0})
        times.append(time.perf_counter() - start)
    return sorted(times)[2]


def killed_process(model, path: Path, n_saved: int, seconds: float) -> int:
    """Number of saves that a process completed until it was killed."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            while True:
                n_saved += 1
                model.save(path, {"n_saves": n_saved})
                os.write(writer, b".")
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    check(os.WIFSIGNALED(status), "a process ended before it was killed")
    with os.fdopen(reader, "rb") as completed:
        return len(completed.read())


def leftovers(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path.parent) if name != path.name)


# Disks


def fill_disks(model: numbanet.TrainableModel, folder: Path, n: int) -> None:
    with small_disk(folder / "disk") as disk:
        if disk is None:
            print("no full disks: this system lets us mount none")
            return
        path = disk / "saves" / "saved.safetensors"
        path.parent.mkdir()
        model.save(path, {"n_saves": 0})
        content = path.read_bytes()
        for k in range(n):
            with filled(disk, k * len(content) // n):
                check_refused(model, path)
            check(path.read_bytes() == content, "the file has changed")
            left = leftovers(path)
            check(left == [], f"files are left: {left}")
        model.save(path, {"n_saves": n})
        check(numbanet.load(path, device="cpu").metadata == {"n_saves": n}, "not the last one")
    print(
        f"{n} times a full tmpfs, with room for 0 to {100 * (n - 1) // n} % of a snapshot:\n"
        f"  {n} of {n} saves raised an OSError that names the file, and left the old one there\n"
        "  part files left: 0; with room again, the next save succeeded"
    )


def check_refused(model: numbanet.TrainableModel, path: Path) -> None:
    try:
        model.save(path)
    except OSError as error:
        check(error.errno in (errno.ENOSPC, errno.EFBIG), f"another error: {error}")
        check(error.filename == str(path), f"an error that does not name {path}: {error}")
    else:
        check(False, "a snapshot found room on a full disk")


@contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """Folder on a small disk of its own; None where the system lets us mount none."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def filled(place: Path, n_bytes: int) -> Iterator[None]:
    """Context within which so many more bytes fit on the disk of a folder."""
    status, filler = os.statvfs(place), place / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - n_bytes)
    try:
        yield
    finally:
        filler.unlink()


def check(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"not as promised: {message}")


if __name__ == "__main__":
    main()
