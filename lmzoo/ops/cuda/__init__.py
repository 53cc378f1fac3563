"""Kernels that exist only for speed on GPUs. Only the dispatchers in `lmzoo.ops` call them."""
