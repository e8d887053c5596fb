"""Tests of the benchmarks: what they compare with is right, and they say what is missing."""
