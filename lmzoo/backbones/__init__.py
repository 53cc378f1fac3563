"""Architectures, one per file. The registry finds each by the name of its file, and imports it at its first use."""
