"""How fast models decode and train, against what this machine can do at best."""

from lmzoo.bench.decode import bench_decode, latency, summary

__all__ = ["bench_decode", "latency", "summary"]
