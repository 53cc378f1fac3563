"""Kernels that exist only for speed on CPUs. Only the dispatchers in `lmzoo.ops` call them."""
