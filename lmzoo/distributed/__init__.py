"""Training on several processes: ranks, launching, DDP and FSDP, sharded optimizer state."""

from typing import Literal

Parallel = Literal["ddp", "fsdp"]  # each rank holds the whole model, or a shard of it
