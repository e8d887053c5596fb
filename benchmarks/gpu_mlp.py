"""Measure inference of plain networks on a GPU: numbanet and other frameworks.

    python benchmarks/gpu_mlp.py [--quick] [--batches 2^14,2^18] [--configs NAMES]
                                 [--methods NAMES] [--output FOLDER]

Networks with 32 inputs, three hidden layers of 64 or 128, and 32 outputs. See README.md.
"""

from gpu_run import main

if __name__ == "__main__":
    main("gpu_mlp", "inference", ("mlp_64", "mlp_128"), __doc__.split("\n\n")[0])
