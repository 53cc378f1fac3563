"""Sequence algorithms. Each has a definition as a loop (`naive_*`) and fast forms behind one dispatcher."""
