"""GGUF files, which llama.cpp and others run: a description of each architecture, and the writer."""
