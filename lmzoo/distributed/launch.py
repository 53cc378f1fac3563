"""`lmzoo train ... --nproc N`: runs the same command on N ranks of this machine with torch's own launcher.

All traffic stays on the loopback interface. When one rank dies, the launcher stops the others.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from lmzoo.errors import ConfigError, LostProcessError

PER_CORE = 4  # processes for each CPU core; more only take memory
STOP_SECONDS = 25  # from SIGTERM to SIGKILL: time for a rank to finish its step and save


def require_processes(nproc: int, batch_size: int) -> None:
    """Raise `ConfigError` unless `nproc` processes can run here and share a batch. Starts nothing."""
    import torch

    from lmzoo.hardware import default_device

    gpus = torch.cuda.device_count() if default_device().type == "cuda" else 0
    limit = gpus or PER_CORE * (os.cpu_count() or 1)
    if nproc > limit:
        what = f"the {gpus} GPUs" if gpus else f"{PER_CORE} for each CPU core, {limit}"
        raise ConfigError(f"nproc={nproc} must be at most {what}")
    if batch_size % nproc:
        raise ConfigError(f"batch_size={batch_size} must be divisible by nproc={nproc}")


def launch(nproc: int, command: Sequence[str]) -> None:
    """Run `lmzoo COMMAND` without its `--nproc` on `nproc` ranks. Returns when all have succeeded.

    Raises `LostProcessError` when a rank was killed; `SystemExit` when one failed and printed its error, or after a
    signal.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # hides a warning of DDP about a setting that we chose
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(STOP_SECONDS))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    logging.disable(logging.CRITICAL)  # hides the launcher's reports: our error is one line
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        # -P: without it Python would import modules from the working directory, such as a pydantic.py there.
        elastic_launch(config, sys.executable)("-P", "-m", "lmzoo", *without_nproc(command))
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from error
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                raise LostProcessError(
                    f"process {rank} of the run ({failure.pid}) was killed by {failure.signal_name()}, and all have "
                    f"stopped: continue with the same command and --resume"
                ) from None
        raise SystemExit(max(1, *(failure.exitcode for failure in error.failures.values()))) from None


def without_nproc(command: Sequence[str]) -> list[str]:
    """Removes `--nproc` from the command so that workers do not start workers."""
    words = iter(command)
    kept: list[str] = []
    for word in words:
        if word == "--nproc":
            next(words, None)
        elif not word.startswith("--nproc="):
            kept.append(word)
    return kept
