"""How fast models decode and train, against what this machine can do at best."""

from lmzoo.bench.decode import bench_decode, latency, summary
from lmzoo.bench.train import bench_train

__all__ = ["bench_decode", "bench_train", "latency", "summary"]
