"""The peers of `bench_peers`: other implementations with the weights of lmzoo's models, and their training steps."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import lmzoo
from lmzoo.bench.steps import PlainSteps, Step
from lmzoo.bench.table import train_tables
from lmzoo.bench.train import BATCHES, bench_train, in_blocks
from lmzoo.hardware import peak_resident
from lmzoo.train.config import TrainConfig
from lmzoo.train.precision import autocast

SIZES = {
    "6x384": {"n_layers": 6, "n_heads": 6, "d_model": 384, "context_length": 256, "batch_size": 16},
    "4x128": {"n_layers": 4, "n_heads": 4, "d_model": 128, "context_length": 64, "batch_size": 12},
}
CPU = torch.device("cpu")


def as_transformers(model: lmzoo.LanguageModel) -> GPT2LMHeadModel:
    """Make transformers' model, in eval mode, with our weights; it stores the weights of linear layers transposed."""
    config: Any = model.config
    settings: dict[str, Any] = {
        "vocab_size": config.vocab_size, "n_positions": config.context_length, "n_embd": config.d_model,
        "n_layer": config.n_layers, "n_head": config.n_heads, "bos_token_id": None, "eos_token_id": None,
        "pad_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "attn_implementation": "sdpa",
    }  # fmt: skip
    theirs = GPT2LMHeadModel(GPT2Config(**settings))
    ours = model.state_dict()
    weights = {"transformer.wte.weight": ours["tokens.weight"], "transformer.wpe.weight": ours["positions.weight"]}
    names = {"norm_1": "ln_1", "norm_2": "ln_2", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"}
    names |= {"up": "mlp.c_fc", "down": "mlp.c_proj"}
    for layer in range(config.n_layers):
        for here, there in names.items():
            for kind in ("weight", "bias"):
                value = ours[f"blocks.{layer}.{here}.{kind}"]
                weights[f"transformer.h.{layer}.{there}.{kind}"] = value.T if value.ndim == 2 else value
    for kind in ("weight", "bias"):
        weights[f"transformer.ln_f.{kind}"] = ours[f"norm.{kind}"]
    weights["lm_head.weight"] = ours["tokens.weight"]
    theirs.load_state_dict(weights)
    idx = torch.zeros(2, 3, dtype=torch.long)
    _require_same(theirs.eval()(idx).logits, model(idx).logits)
    return theirs


class MambapyLM(nn.Module):
    """mambapy's blocks with its parallel scan, between an embedding and a tied head, with our weights."""

    def __init__(self, model: lmzoo.LanguageModel) -> None:
        from mambapy.mamba import Mamba, MambaConfig, RMSNorm

        super().__init__()
        config: Any = model.config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = Mamba(MambaConfig(config.d_model, config.n_layers, d_state=config.d_state, pscan=True))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        names = {"blocks.": "blocks.layers.", "before": "norm", "inner": "mixer", "dt_bias": "dt_proj.bias"}
        names["conv."] = "conv1d."
        weights = {}
        for name, value in model.state_dict().items():
            if name.endswith("conv.weight"):
                value = value[:, None]
            for here, there in names.items():
                name = name.replace(here, there)
            weights[name] = value
        self.load_state_dict(weights)
        idx = torch.randint(config.vocab_size, (2, 32))
        _require_same(self(idx), model(idx).logits)

    def forward(self, idx_BT: Tensor) -> Tensor:
        return F.linear(self.norm(self.blocks(self.tokens(idx_BT))), self.tokens.weight)


def train(args: argparse.Namespace) -> None:
    """Compare training steps of gpt2 with transformers and torch's fused AdamW, in float32 and with bf16 autocast."""
    sizes: dict[str, Any] = dict(SIZES[args.size])
    config = TrainConfig(batch_size=sizes.pop("batch_size"), compile=args.compile)
    model = lmzoo.create_model("gpt2", vocab_size=65, **sizes)
    with ExitStack() as stack:
        peers = {
            f"transformers {precision}": stack.enter_context(Elsewhere(args.size, precision, args.threads))
            for precision in ("float32", "bf16")
        }
        result = bench_train(model, config, repeats=args.repeats, peers=peers, keep_freed_memory=True)
    spent = {entry["name"]: entry["ms_per_step"] for entry in result["results"]}
    result["ratios"] = {
        f"{ours} beside {peer}": spent[peer] / spent[ours] for peer in peers for ours in spent if ours not in peers
    }
    result["load"] = os.getloadavg()[0]
    if args.json:
        print(json.dumps(result))
        return
    Console().print(train_tables(f"gpt2 {args.size}", result))
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio:.2f} times as fast")
    print(f"load average of the last minute: {result['load']:.1f}")


class Elsewhere:
    """Steps of a peer in a process of its own, so that its memory is allocated as if it ran alone."""

    def __init__(self, size: str, precision: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=take_steps, args=(theirs, size, precision, threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe is closed when the process ends

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()

    def __call__(self, steps: int) -> float:
        """Take one warm-up step and then `steps` steps; return the seconds of the latter."""
        self._pipe.send(steps)
        return self._pipe.recv()


def take_steps(pipe: Connection, size: str, precision: str, threads: int) -> None:
    """Read numbers from the pipe, take as many steps of transformers, and send their seconds, until it is closed."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(SIZES[size])
    config = TrainConfig(batch_size=sizes.pop("batch_size"))
    model = lmzoo.create_model("gpt2", vocab_size=65, **sizes)
    shape = config.batch_size, model.config.context_length
    batches = [(torch.randint(65, shape), torch.randint(65, shape)) for _ in range(BATCHES)]
    work = PlainSteps(transformers_step(model, config, precision), batches, CPU)
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(work(pipe.recv()))


def transformers_step(model: lmzoo.LanguageModel, config: TrainConfig, precision: str) -> Step:
    """Make a plain training step: autocast, cross-entropy of the logits, gradient clipping, fused AdamW."""
    theirs = as_transformers(model).train()
    parameters = list(theirs.parameters())
    betas = (config.beta1, config.beta2)
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
    )

    def step(idx_BT: Tensor, targets_BT: Tensor) -> None:
        with autocast(CPU, precision):
            logits_BTV = theirs(idx_BT, use_cache=False).logits
            loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def mamba(args: argparse.Namespace) -> None:
    """Compare forward and backward of mamba with mambapy's parallel scan: time and peak memory."""
    B, T, V = 8, 512, 65
    ours = lmzoo.create_model("mamba", vocab_size=V, d_model=256, n_layers=2, context_length=T)
    config: Any = ours.config
    theirs = MambapyLM(ours)
    batches = [(torch.randint(V, (B, T)), torch.randint(V, (B, T))) for _ in range(4)]

    def step(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Step:
        def run(idx_BT: Tensor, targets_BT: Tensor) -> None:
            loss_of(idx_BT, targets_BT).backward()
            model.zero_grad()

        return run

    steps = {
        "lmzoo": step(ours, lambda idx, targets: ours(idx, targets, return_logits=False).loss),
        "mambapy": step(theirs, lambda idx, targets: F.cross_entropy(theirs(idx).flatten(0, 1), targets.flatten())),
    }
    works = {name: PlainSteps(one, batches, CPU) for name, one in steps.items()}
    seconds = {name: median(spent) for name, spent in in_blocks(works, args.repeats, seconds=1.0).items()}
    peaks = {name: peak_resident(lambda work=work: work(1)) for name, work in works.items()}
    result = {
        "seconds": seconds,
        "ratio": seconds["mambapy"] / seconds["lmzoo"],
        "peak_bytes": peaks,
        "bytes_of_a_state_per_token": 4 * B * T * config.expand * config.d_model * config.d_state,
        "threads": args.threads,
        "load": os.getloadavg()[0],
    }
    if args.json:
        print(json.dumps(result))
        return
    for name, spent in seconds.items():
        print(f"{name}: {spent * 1e3:.0f} ms forward and backward, {(peaks[name] or 0) / 1e6:.0f} MB at the peak")
    print(f"a state per token in one layer would be {result['bytes_of_a_state_per_token'] / 1e6:.0f} MB")
    print(f"lmzoo is {result['ratio']:.1f} times as fast; load over the last minute {result['load']:.1f}")


def _require_same(theirs: Tensor, ours: Tensor) -> None:
    difference = (theirs - ours).abs().max()
    assert difference < 1e-4, f"the peer computes a different function: its logits differ by {difference}"
