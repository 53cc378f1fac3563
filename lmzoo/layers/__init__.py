"""Layers to build architectures from: one protocol (`layer.Layer`), three composers (`stack`), and mixers."""
