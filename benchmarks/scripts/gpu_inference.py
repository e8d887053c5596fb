"""Measure inference on a GPU: numbanet and other frameworks, the same models each.

    python -m benchmarks.scripts.gpu_inference [--quick] [--batches 2^14,2^18] [--configs NAMES]
                                       [--methods NAMES] [--output FOLDER]

The models are those of two sample configs. See README.md for what is measured and how.
"""

from benchmarks.harness.gpu_benchmark import main

if __name__ == "__main__":
    main("gpu_inference", "inference", ("config_hash", "config_oneblob"), __doc__.split("\n\n")[0])
