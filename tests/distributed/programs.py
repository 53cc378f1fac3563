"""Program for several processes: trains the runs that a JSON file lists, one after another, in one process group.

Starting processes takes far longer than a small run: so one pair of them trains many. torchrun starts it with the file
for each rank; without an argument it reads the number of ranks and the file from its input, line by line, and forks the
ranks, which then need not import torch. The file may also be another program.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributed import TCPStore

import lmzoo
from lmzoo.data.batches import BatchStream
from lmzoo.data.stream_batches import BLOCK_WINDOWS, StreamBatches
from lmzoo.distributed.ranks import process_group
from lmzoo.errors import LmzooError
from lmzoo.hardware import multiplies_bf16
from lmzoo.losses import IGNORE_INDEX, auxiliary_loss
from lmzoo.runs import run as runs
from lmzoo.runs.start import start_spec
from lmzoo.train import muon
from lmzoo.train.events import Event, Listener, StepEvent
from lmzoo.train.signals import Interrupted

PORT_DIGITS = 5
LIMIT_SECONDS = 240
PLAIN_BATCH = BatchStream.batch


def ragged_batch(self: BatchStream, step: int) -> tuple[Tensor, Tensor]:
    """Make a batch whose rows have very different numbers of targets, the first rows the fewest."""
    idx_BT, targets_BT = PLAIN_BATCH(self, step)
    B, T = targets_BT.shape
    for row in range(B):
        targets_BT[row, (row * T) // B + (step + row) % 2 :] = IGNORE_INDEX
    return idx_BT, targets_BT


class ChoosingBlock(nn.Module):
    """Routes each sequence to one of two experts by its first token; the third expert is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x_BTD: Tensor, even_B: Tensor) -> Tensor:
        out_BTD = torch.zeros_like(x_BTD)
        for number, rows_B in enumerate((even_B, ~even_B)):
            if rows_B.any():
                out_BTD = out_BTD + self.experts[number](x_BTD) * rows_B[:, None, None]
        auxiliary_loss("size", out_BTD.square().mean())
        return x_BTD + out_BTD


class Choosing(lmzoo.LanguageModel):
    """A model with parameters that some ranks or all ranks do not use, and with an auxiliary loss."""

    def __init__(self, config: lmzoo.ModelConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, 8)
        self.blocks = nn.ModuleList([ChoosingBlock()])
        self.head = nn.Linear(8, config.vocab_size)

    @property
    def traits(self) -> lmzoo.Traits:
        return lmzoo.Traits(extrapolates=True)

    def features(self, idx_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return self.blocks[0](self.tokens(idx_BT), idx_BT[:, 0] % 2 == 0), state


def stop_at(step: int | None) -> Listener:
    """Make a listener that sends SIGTERM to its process in a step; only rank 0 calls listeners."""

    def listen(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return listen


def train_all(jobs: list[dict[str, Any]]) -> list[str]:
    """Train all jobs; return the outcome of each: "" or the message of its error."""
    ends: list[str] = []
    for job in jobs:
        BatchStream.batch = ragged_batch if job.get("ragged") else PLAIN_BATCH
        StreamBatches.__init__.__defaults__ = (job.get("block_windows", BLOCK_WINDOWS),)
        try:
            if "start" in job:
                spec = start_spec(None, Path(job["start"]), job["data"], job["settings"], teacher=job["teacher"])
            else:
                spec = runs.make_spec(job["model"], job["data"], overrides=job["settings"])
            resume, reshard = job.get("resume", False), job.get("reshard", False)
            listeners = [stop_at(job.get("stop_at"))]
            # In bfloat16, the order of summation changes losses visibly, which would hide other errors.
            with patch.object(muon, "multiplies_bf16", (lambda _: False) if job.get("unrounded") else multiplies_bf16):
                runs.train_run(spec, job["out"], resume=resume, reshard=reshard, listeners=listeners)
            ends.append("")
        except Interrupted as stopped:
            ends.append(f"stopped at {stopped.step}")
        except LmzooError as error:
            ends.append(str(error))
    return ends


def train_file(file: Path) -> None:
    """Train the jobs of a file as one rank of those that the environment names."""
    with process_group() as ranks:
        ends = train_all(json.loads(file.read_text(encoding="utf-8")))
        file.with_suffix(f".{ranks.rank}").write_text(json.dumps(ends), encoding="utf-8")


def forked(file: Path, world_size: int) -> bool:
    """Fork the ranks that run a file of jobs or a program; return whether all have succeeded. A failure ends all."""
    ready, tell = os.pipe()
    ranks: set[int] = set()
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            code = 1
            signal.alarm(LIMIT_SECONDS)  # ends a rank that waits for ever
            try:
                port = os.read(ready, PORT_DIGITS).decode()
                place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
                os.environ |= place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
                if file.suffix == ".py":
                    sys.argv = [str(file)]
                    runpy.run_path(str(file), run_name="__main__")
                else:
                    train_file(file)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        ranks.add(pid)
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # after the forks: it starts a thread
    os.write(tell, f"{store.port:{PORT_DIGITS}}".encode() * world_size)
    done = True
    while ranks:
        pid, status = os.wait()
        ranks.discard(pid)
        if status:
            done = False
            for other in ranks:
                os.kill(other, signal.SIGKILL)
    os.close(ready)
    os.close(tell)
    return done


def main() -> None:
    """Train the jobs of the file that is the argument, or of each file in a line of the input."""
    torch.set_num_threads(1)
    runs.SAMPLE_TOKENS = 4  # a long sample would take longer than the training
    lmzoo.register_model("choosing")(Choosing)
    if len(sys.argv) > 1:
        train_file(Path(sys.argv[1]))
        return
    for name in ("torch._dynamo", "torch.distributed.fsdp", "lmzoo.generation.text", "numpy.random", "tomli_w"):
        import_module(name)  # training does, in every rank otherwise
    gc.freeze()  # the garbage collector of a rank would copy every page that it visits
    for line in sys.stdin:
        world_size, _, name = line.strip().partition(" ")
        print("done" if forked(Path(name), int(world_size)) else "failed", flush=True)


if __name__ == "__main__":
    main()
