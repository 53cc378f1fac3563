"""Kernels that exist only for speed on CPUs. They are called by the dispatchers in `lmzoo.ops` and by nothing else."""
