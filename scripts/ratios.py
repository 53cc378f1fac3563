"""The ratios of `bench_peers ratios`: fast forms against definitions and peers, long sequences, late positions.

Each ratio is taken between medians of rounds in which all sides take turns, once from wall time and once from the CPU
time of the process, which other processes disturb less. All models are as trained: forward and backward, 8 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peers import MambapyLM
from torch import Tensor, nn

import lmzoo
from lmzoo.bench import latency
from lmzoo.bench.ops import ROWS, forward_backward, ops_of
from lmzoo.configs import to_dict
from lmzoo.hf.mamba2 import WEIGHTS as MAMBA2
from lmzoo.hf.weights import convert
from lmzoo.train.malloc import keep_freed_memory

T, V = 512, 65
SHORT = (1, 2, 3, 4, 6, 8, 12, 16, 32, 256)  # where a dispatcher might choose badly
LONG = (512, 1024, 2048)
MATRICES = ("deltanet", "gated_deltanet", "kda", "gla", "linear_attention", "retnet", "mamba2", "rwkv7", "xlstm")
VECTORS = ("mamba", "griffin", "mingru", "lstm", "gru", "rnn")  # their states are vectors
OTHERS = ("deltaproduct", "log_linear", "mamba3", "ttt", "s4d", "hyena", "path_attention")
LINEAR = ("mamba", *MATRICES[:-1])  # families whose cost grows with the length and no faster
BLOCK_SECONDS = 0.1
SHORT_BLOCK_SECONDS = 0.02  # for sections of some hundred ratios

Work = Callable[[], object]


class Ratio(NamedTuple):
    """A measured ratio, and the bound that was asked for."""

    name: str
    wall: float
    cpu: float
    bound: float
    at_most: bool

    @property
    def met(self) -> bool:
        """True if the wall time keeps the bound."""
        return self.wall <= self.bound if self.at_most else self.wall >= self.bound


def alternate(works: Mapping[str, Work], repeats: int, block: float = BLOCK_SECONDS) -> dict[str, tuple[float, float]]:
    """Returns the median wall and CPU seconds of each work.

    Blocks of runs of about `block` seconds take turns, every second round reversed.
    """
    sizes: dict[str, int] = {}
    for name, work in works.items():
        work()
        began = time.perf_counter()
        work()
        sizes[name] = max(1, round(block / (time.perf_counter() - began)))
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for number in range(repeats):
        for name, work in list(works.items())[:: -1 if number % 2 else 1]:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(sizes[name]):
                work()
            size = sizes[name]
            spent[name].append(((time.perf_counter() - wall) / size, (time.process_time() - cpu) / size))
    return {name: (median(w for w, _ in both), median(c for _, c in both)) for name, both in spent.items()}


def compare(
    name: str,
    slow: Work,
    fast: Work,
    repeats: int,
    bound: float,
    *,
    at_most: bool = False,
    block: float = BLOCK_SECONDS,
) -> Ratio:
    """Returns the time of `slow` divided by the time of `fast`."""
    spent = alternate({"slow": slow, "fast": fast}, repeats, block)
    return Ratio(name, spent["slow"][0] / spent["fast"][0], spent["slow"][1] / spent["fast"][1], bound, at_most)


def train_step(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], rows: int, length: int) -> Work:
    """Returns a function that runs forward and backward on random tokens."""
    draw = torch.Generator().manual_seed(0)
    idx_BT, targets_BT = (torch.randint(V, (rows, length), generator=draw) for _ in range(2))

    def step() -> None:
        loss_of(idx_BT, targets_BT).backward()
        model.zero_grad()

    return step


def our_step(model: lmzoo.LanguageModel, rows: int = ROWS, length: int = T) -> Work:
    """Returns a training step of one of our models, without the optimizer."""
    return train_step(model, lambda idx, targets: model(idx, targets, return_logits=False).loss, rows, length)


def their_step(model: nn.Module, logits_of: Callable[[Tensor], Tensor]) -> Work:
    """Returns a training step of another implementation, without the optimizer."""
    return train_step(
        model, lambda idx, targets: F.cross_entropy(logits_of(idx).flatten(0, 1), targets.flatten()), ROWS, T
    )


def definitions(repeats: int) -> Iterator[Ratio]:
    """Chunked forms of matrix-valued recurrences against their loops, with the sizes of the preset 10m."""
    for family in MATRICES:
        for name, (choice, args) in ops_of(lmzoo.create_model(f"{family}.10m", vocab_size=V), T).items():
            if name not in ("causal_conv1d", "slstm"):
                naive, fast = (forward_backward(form, args) for form in (choice.naive, choice.fast))
                yield compare(f"{name} of {family}.10m, {T} tokens", naive, fast, repeats, 5)


def dispatchers(repeats: int, lengths: tuple[int, ...], bound: float = 1.0) -> Iterator[Ratio]:
    """Every form that a dispatcher takes against the other one, with default sizes: how much slower it is.

    The loops of `OTHERS` keep up to 26 GB for the backward pass of 2,048 tokens and are measured on short texts alone.
    """
    for family in (*MATRICES, *VECTORS, *(OTHERS if max(lengths) <= 256 else ())):
        model = lmzoo.create_model(family, vocab_size=V, context_length=max(lengths))
        for length in lengths:
            for name, (choice, args) in ops_of(model, length).items():
                if name == "causal_conv1d" and family != "mamba":
                    continue
                taken = choice.form(length)
                other = choice.fast if taken is choice.naive else choice.naive
                mine, theirs = (forward_backward(form, args) for form in (taken, other))
                title = f"{taken.__name__} of {family}, {length} tokens"
                yield compare(title, mine, theirs, repeats, bound, at_most=True, block=SHORT_BLOCK_SECONDS)


def mamba(repeats: int) -> Iterator[Ratio]:
    """Mamba against mambapy's parallel scan."""
    model = lmzoo.create_model("mamba", vocab_size=V, d_model=256, n_layers=2, context_length=T)
    theirs = MambapyLM(model)
    yield compare("mamba: mambapy / ours", their_step(theirs, theirs), our_step(model), repeats, 5)


def mamba2(repeats: int) -> Iterator[Ratio]:
    """Mamba-2 against the chunked torch path of transformers, with the same weights."""
    from transformers import Mamba2Config, Mamba2ForCausalLM

    sizes = {"hidden_size": 256, "num_heads": 16, "head_dim": 32, "state_size": 64, "num_hidden_layers": 2}
    theirs = Mamba2ForCausalLM(Mamba2Config(vocab_size=V, pad_token_id=None, n_groups=1, conv_kernel=4, **sizes))
    settings = {"d_model": 256, "head_dim": 32, "d_state": 64, "n_layers": 2, "tie_embeddings": False}
    model = lmzoo.create_model("mamba2", vocab_size=V, context_length=T, **settings)
    model.load_state_dict(convert(theirs.state_dict(), MAMBA2, to_dict(model.config)))
    idx_BT = torch.randint(V, (2, 300))
    _require_same(theirs(idx_BT, use_cache=False).logits, model(idx_BT).logits)
    step = their_step(theirs, lambda idx: theirs(idx, use_cache=False).logits)
    yield compare("mamba2: transformers / ours", step, our_step(model), repeats, 1.5)


def delta_rules(repeats: int) -> Iterator[Ratio]:
    """The gated delta rules against transformers' chunked functions, on what our models compute with."""
    from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import torch_chunk_gated_delta_rule

    def gated(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, _: None) -> tuple[Tensor]:
        y, _ = torch_chunk_gated_delta_rule(q * q.shape[-1] ** 0.5, k, v, log_decay.squeeze(-1), beta)
        return (y,)

    def kimi(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, _: None) -> tuple[Tensor]:
        y, _ = chunk_kimi_delta_attention(q * q.shape[-1] ** 0.5, k, v, log_decay, beta)
        return (y,)

    for family, theirs in (("gated_deltanet", gated), ("kda", kimi)):
        for preset in ("", ".10m"):
            name = f"{family}{preset}"
            choice, args = ops_of(lmzoo.create_model(name, vocab_size=V, context_length=T), T)["gated_delta_rule"]
            _require_same(theirs(*args)[0], choice.fast(*args)[0])
            slow, fast = (forward_backward(form, args) for form in (theirs, choice.fast))
            yield compare(f"{name}: transformers' chunks / ours", slow, fast, repeats, 2)


def experts(repeats: int) -> Iterator[Ratio]:
    """Two of eight experts against a dense model with equal active FLOPs."""
    sizes: dict[str, Any] = {"d_model": 256, "n_layers": 2, "n_heads": 4, "context_length": T, "vocab_size": V}
    sparse = lmzoo.create_model("mixtral", d_ff=384, n_experts=8, top_k=2, **sizes)
    dense = lmzoo.create_model("llama", d_ff=768, **sizes)
    ratio = sparse.flops_per_token(T) / dense.flops_per_token(T)
    assert 0.95 < ratio < 1.05, ratio
    yield compare(
        "mixtral / llama of equal active FLOPs", our_step(sparse), our_step(dense), repeats, 1.5, at_most=True
    )


def lengths(repeats: int, families: tuple[str, ...] = LINEAR, tokens: int = 8192) -> Iterator[Ratio]:
    """A step of the same number of tokens in rows of 4,096 against rows of 256."""
    for family in families:
        model = lmzoo.create_model(f"{family}.1m", vocab_size=V, context_length=4096)
        long, short = (our_step(model, tokens // length, length) for length in (4096, 256))
        yield compare(f"{family}.1m: rows of 4,096 / 256", long, short, min(repeats, 3), 1.25, at_most=True)


def positions(repeats: int) -> Iterator[Ratio]:
    """A decoding step at position 16,000 against position 1,000."""
    for family in (*MATRICES, *VECTORS):
        model = lmzoo.create_model(f"{family}.1m", vocab_size=V).eval()
        early, late = latency(model, (1000, 16000), steps=50 * repeats)
        value = late["ms_per_step"] / early["ms_per_step"]
        yield Ratio(f"{family}.1m: a step at 16,000 / 1,000", value, value, 1.1, True)


SECTIONS: dict[str, Callable[[int], Iterator[Ratio]]] = {
    "mamba": mamba,
    "mamba2": mamba2,
    "delta-rules": delta_rules,
    "experts": experts,
    "definitions": definitions,
    "lengths": lengths,
    "positions": positions,
    "dispatchers": lambda repeats: dispatchers(repeats, SHORT),
    "dispatchers-long": lambda repeats: dispatchers(min(repeats, 3), LONG),
}


def ratios(args: argparse.Namespace) -> None:
    """Measure the ratios of the chosen sections and print each as soon as it is known."""
    found: list[dict[str, Any]] = []
    with keep_freed_memory():
        for section in args.only or SECTIONS:
            for ratio in SECTIONS[section](args.repeats):
                found.append({"section": section, **ratio._asdict(), "met": ratio.met})
                if not args.json:
                    bound = f"{'at most' if ratio.at_most else 'at least'} {ratio.bound:g}"
                    times = f"{ratio.wall:6.2f} (CPU time {ratio.cpu:6.2f})"
                    print(f"{ratio.name:52s} {times}  {bound:13s} {'' if ratio.met else 'missed'}", flush=True)
    load = os.getloadavg()[0]
    if args.json:
        print(json.dumps({"threads": args.threads, "repeats": args.repeats, "load": load, "ratios": found}))
    else:
        print(f"load average of the last minute: {load:.1f}")


def _require_same(theirs: Tensor, ours: Tensor) -> None:
    off = (theirs - ours).abs().max() / ours.abs().max()
    assert off < 1e-4, f"the peer computes a different function: it is off by {off}"
