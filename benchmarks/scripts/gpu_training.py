"""Measure training steps on a GPU: numbanet and other frameworks, the same jobs each.

    python -m benchmarks.scripts.gpu_training [--quick] [--batches 2^14,2^18] [--configs NAMES]
                                      [--methods NAMES] [--output FOLDER]

A photograph is learnt with the models of two sample configs. See README.md for what is measured.
"""

from benchmarks.harness.gpu_benchmark import main

if __name__ == "__main__":
    main("gpu_training", "training", ("config_hash", "config_oneblob"), __doc__.split("\n\n")[0])
