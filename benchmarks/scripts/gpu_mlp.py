"""Measure inference of plain networks on a GPU: numbanet and other frameworks.

    python -m benchmarks.scripts.gpu_mlp [--quick] [--batches 2^14,2^18] [--configs NAMES]
                                 [--methods NAMES] [--output FOLDER]

Networks with 32 inputs, three hidden layers of 64 or 128, and 32 outputs. See README.md.
"""

from benchmarks.harness.gpu_benchmark import main

if __name__ == "__main__":
    main("gpu_mlp", "inference", ("mlp_64", "mlp_128"), __doc__.split("\n\n")[0])
