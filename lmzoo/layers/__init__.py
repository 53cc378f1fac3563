"""The layers that architectures are built from: one protocol (`layer.Layer`), three composers (`stack`), and mixers."""
