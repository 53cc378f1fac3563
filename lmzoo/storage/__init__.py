"""Files: atomic writes, safetensors, models and checkpoints."""
