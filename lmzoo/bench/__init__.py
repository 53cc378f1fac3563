"""Benchmarks: the speed of decoding and training, compared with the best that this machine can do."""

from lmzoo.bench.decode import bench_decode, latency, summary
from lmzoo.bench.train import bench_train

__all__ = ["bench_decode", "bench_train", "latency", "summary"]
