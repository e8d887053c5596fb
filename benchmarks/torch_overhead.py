"""What does it cost to train through PyTorch? numbanet.torch beside the Trainer, on the CPU.

    python benchmarks/torch_overhead.py [--batch-sizes 2^16] [--rounds 9] [--output FILE]

The job, its verification and its timing are those of cpu_training.py. OpenMP's threads wait
passively in all processes, unless OMP_WAIT_POLICY says otherwise. Needs the `torch` extra.
"""

import argparse
import json
import os
from pathlib import Path

import cpu_training
import numpy as np

HERE = Path(__file__).parent
TRAINER, RIVAL = cpu_training.NUMBANET, "torch-compiled"
PATHS = {
    "module.loss": "torch_method:ModuleLoss",
    "module, torch's loss": "torch_method:Module",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch-sizes", type=cpu_training.batch_sizes, default="2^16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--image", type=Path, default=HERE.parent / "samples/images/astronaut.png")
    parser.add_argument("--output", type=Path, default=HERE / "results/torch_overhead.json")
    options = parser.parse_args()
    options.rivals = [*PATHS, RIVAL]
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    cpu_training.METHODS.update(PATHS)
    methods, report = cpu_training.start_methods(options)
    report["results"] = []
    for n in options.batch_sizes:
        first_calls, seconds = cpu_training.measure_job(
            methods, "training", n, options.rounds, 0.4, report
        )
        report["results"].append(cpu_training.summary("training", n, first_calls, seconds))
        print_ratios(n, seconds)
    for process in methods.values():
        process.close()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {options.output}")


def print_ratios(n, seconds):
    """Milliseconds of a step, and as much as the Trainer's, taken round by round."""
    print(f"\ntraining step of {n} samples: ms, and times the Trainer's (quartiles)")
    for name, values in seconds.items():
        line = f"{name:22} {1e3 * np.median(values):8.2f}"
        if TRAINER in seconds:
            low, middle, high = np.quantile(np.divide(values, seconds[TRAINER]), (0.25, 0.5, 0.75))
            line += f" {middle:8.2f}   ({low:.2f} to {high:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
