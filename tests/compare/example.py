"""Invented results for the tests of table and report: every kind of row, and texts that must be escaped."""

from __future__ import annotations

import dataclasses
import math

from lmzoo.compare.activations import Activations
from lmzoo.compare.results import CellResult, ModelResult, Reference, Results, Yardstick
from lmzoo.compare.statistics import analyze
from lmzoo.compare.token_classes import MEANINGS
from lmzoo.data.probes import PROBES
from lmzoo.probing.results import describe
from tests.probing.example import cell as probe_cell


def model(name: str, loss: float, **more: object) -> ModelResult:
    row = ModelResult(
        name=name,
        params=112_640,
        params_non_embedding=100_000,
        loss=loss,
        bits_per_byte=loss / math.log(2),
        train_tokens_per_s=48_000.0,
        decode_tokens_per_s=910.0,
        flops_per_token=240_000.0,
        state_bytes=16_384,
        seconds=32.0,
        run=f"runs/{name}",
        sample=f" and what {name} wrote",
        curve=[[0, 4.17], [1000, 2.6], [2000, loss]],
    )
    return dataclasses.replace(row, **more)  # type: ignore[arg-type]


def example() -> Results:
    return Results(
        corpus={
            "name": "sea.txt",
            "sha256": "ab" * 32,
            "origin": "",
            "overlap": {"share": 0.028, "text": "2.8 % of the <validation> split is copied."},
            "train_tokens": 9000,
            "val_tokens": 1000,
            "val_bytes": 1000,
        },
        tokenizer={"spec": "char", "vocab_size": 65, "sha256": "cd" * 32},
        budget={"steps": 100, "batch_size": 4, "context_length": 5, "tokens": 2000},
        seed=7,
        hardware={"device": "a <processor>", "threads": 2, "cores": 2},
        versions={"lmzoo": "0.1.0", "torch": "2.13"},
        models=[
            model("slow", 1.90, train_tokens_per_s=1234.5, decode_tokens_per_s=12.0),
            model("best", 1.50, sample="</pre><script>alert('x')</script> & more"),
            model("close", 1.51),
            ModelResult(name="wild", status="diverged", problem="step 3: the loss is nan | <b>", curve=[[500, 3.0]]),
            ModelResult(name="leaky", status="failed", problem="failed causality", loss=0.1),
        ],
        references=[
            Reference(name="2-gram", order=2, loss=2.4, bits_per_byte=3.46, counted_tokens=2000),
            Reference(name="3-gram", order=3, loss=1.7, bits_per_byte=2.45, counted_tokens=2000),
        ],
        bigram_limits={"train": 2.35, "val": 2.45},
        prompt="The <sea>",
        decode_tokens=4,
        command="lmzoo compare best --data 'a & b.txt'",
    )


def several_seeds(losses: dict[str, list[float]]) -> Results:
    """A comparison with the given losses of each model, by seed, and a model that diverged."""
    seeds = list(range(7, 7 + len(next(iter(losses.values())))))
    models = [
        model(
            name,
            sum(found) / len(found),
            cells=[
                CellResult(seed=seed, run=f"runs/{name}", loss=loss) for seed, loss in zip(seeds, found, strict=True)
            ],
        )
        for name, found in losses.items()
    ]
    plain = example()
    return dataclasses.replace(plain, models=[*models, plain.models[3]], seeds=seeds, statistics=analyze(losses))


HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>"  # a name that would end a script, or a comment


def everything(names: tuple[str, ...] = ("gpt2.tiny", "mamba.tiny", HOSTILE)) -> Results:
    """A comparison with three seeds, curves, a tuned rate and checks; one more model diverged, and one failed.

    The first model extrapolates; its `by_position` goes on beyond the training length of 5 tokens.
    """
    seeds, losses, models, tried = [7, 8, 9], {}, [], {}
    for number, name in enumerate(names):
        run = f"runs/{name},seed="
        losses[name] = [1.5 + number / 4 + seed / 1000 for seed in seeds]
        cells = [
            CellResult(
                seed=seed,
                run=f"{run}{seed}",
                loss=loss,
                selection_loss=loss + 0.1,
                curve=_fall(loss),
                by_position=by_position(loss, further=number == 0 and seed == 7),
                by_class=by_class(loss),
            )
            for seed, loss in zip(seeds, losses[name], strict=True)
        ]
        more = {
            "cells": cells,
            "curve": _fall(losses[name][1]),
            "by_position": by_position(losses[name][1], further=number == 0),
            "by_class": by_class(losses[name][1]),
            "checks": {"causality": True, "decoding": True},
            "config": {"model": {"d_model": 64}, "train": {"learning_rate": 0.01, "seed": 7}, "precision": "float32"},
            "decode_tokens_per_s": 900.0 / (number + 1),
            "state_bytes": 1000 * (3 - number),
        }
        models.append(model(name, losses[name][1], **more))
        rates = [(0.005, 2.0, "trained"), (0.01, 1.7, "trained"), (0.02, None, "diverged")]
        trials = [{"value": v, "run": "r", "status": s, "selection_loss": x, "loss": x} for v, x, s in rates]
        tried[name] = {"chosen": 0.01, "at_end": False, "tried": trials}
    plain = example()
    wild, leaky = plain.models[3], dataclasses.replace(plain.models[4], checks={"causality": False, "decoding": True})
    half = {"documents": 2, "tokens": 500, "bytes": 500}
    return dataclasses.replace(
        plain,
        corpus={**plain.corpus, "entropy_rate": {"nats": 1.25, "error": 0.0}},
        budget={**plain.budget, "documents": "joined"},
        protocol={
            "split": "half",
            "documents": "joined",
            "context": "reset",
            "context_length": 5,
            "stride": 5,
            "targets": 499,
        },
        yardsticks=[Yardstick(name="uniform", loss=math.log(65), bits_per_byte=math.log2(65))],
        models=[*models, wild, leaky],
        seeds=seeds,
        statistics=analyze(losses),
        tuning={
            "setting": "learning_rate",
            "values": [0.005, 0.01],
            "most_added": 2,
            "selection": half,
            "report": half,
            "models": tried,
        },
    )


def probed_example() -> Results:
    """`everything` with two probes: the first model with two seeds, a hostile name with one that diverged."""
    cells = [
        probe_cell(HOSTILE, "mqar", 7, 0.25, 0.6),
        probe_cell(HOSTILE, "parity", 7, None, None),
        probe_cell("gpt2.tiny", "mqar", 7, 1.0, 0.99),
        probe_cell("gpt2.tiny", "mqar", 8, 1.0, 0.98),
        probe_cell("gpt2.tiny", "parity", 7, 1.0, 0.51),
        probe_cell("gpt2.tiny", "parity", 8, 1.0, 0.53),
    ]
    tables = [dataclasses.asdict(cell) for cell in cells]
    for table in tables:
        del table["curve"], table["settings"]
    levels = [dataclasses.asdict(describe(PROBES[name], "easy")) for name in ("mqar", "parity")]
    probes = {"steps": 50, "batch_size": 64, "levels": levels, "cells": tables}
    return dataclasses.replace(everything(), probes=probes)


def two_searches() -> Results:
    """A comparison in which the warm-up was searched after the learning rate, by successive halving."""
    plain = everything()
    rates = {
        "chosen": 0.01,
        "at_end": True,
        "tried": [
            _trial(0.005, 1.5, parts=[[25, 2.5], [50, 2.0], [100, 1.5]]),
            _trial(0.01, 1.4, parts=[[25, 2.4], [50, 1.9], [100, 1.4]]),
            _trial(0.02, 2.6, parts=[[25, 2.6]], status="stopped"),
            _trial(0.04, None, parts=[[25, 3.0], [50, None]], status="diverged"),
        ],
    }
    warmups = {
        "chosen": 0.0,
        "at_end": False,
        "tried": [
            _trial(0.0, 1.3, parts=[[25, 2.1], [50, 1.8], [100, 1.3]]),
            _trial(5.0, 1.4, parts=[[25, 2.4], [50, 1.9], [100, 1.4]]),
        ],
    }
    later = {"setting": "warmup_steps", "values": [0.0, 5.0], "models": {"gpt2.tiny": warmups}}
    halving = {"parts": [0.25, 0.5, 1.0], "tokens": 7500, "saved_tokens": 1500, "saved_share": 1 / 6}
    tuning = {**plain.tuning, "models": {"gpt2.tiny": rates}, "then": [later], "halving": halving}
    return dataclasses.replace(plain, tuning=tuning)


def _trial(value: float, loss: float | None, **more: object) -> dict[str, object]:
    run = f"runs/{value:g}" if value != 5.0 else "runs/0.01"  # the second search goes on from the first
    return {"value": value, "run": run, "status": "trained", "selection_loss": loss, "loss": loss, **more}


def by_position(loss: float, *, further: bool = False) -> list[dict[str, object]]:
    """Losses by position around a mean; `further`: also beyond the training length."""
    ranges = [(1, 1), (2, 2), (3, 4), (5, 5), *([(6, 8), (9, 16), (17, 20)] if further else [])]
    return [{"first": a, "last": b, "loss": loss + 0.5 / a, "tokens": 100 * (b - a + 1)} for a, b in ranges]


def by_class(loss: float) -> list[dict[str, object]]:
    """Losses by class around a mean; no token is rare."""
    losses = [None if name == "rare" else loss + number / 10 for number, name in enumerate(MEANINGS)]
    return [
        {"name": name, "loss": found, "tokens": 0 if found is None else 100}
        for name, found in zip(MEANINGS, losses, strict=True)
    ]


def _fall(loss: float) -> list[list[float]]:
    return [[0, 4.17], [500, loss + 1], [1000, loss + 0.4], [2000, loss]]


def _logged() -> Activations:
    """Activation statistics of two models of `everything`, of which one has experts and a state."""
    tokens, names = (500, 1000, 2000), ("gpt2.tiny", "mamba.tiny")
    roles = ("matrix", "embedding", "head", "vector")
    ends = {"least": 0.5, "least_layer": 1, "most": 2.5, "most_layer": 2}
    return Activations(
        residual_rms={
            name: [{"tokens": n, "block": b, "rms": 1.0 + n * b} for n in tokens for b in range(3)] for name in names
        },
        largest_logit={name: [{"tokens": n, "logit": 2.0 + n / 100} for n in tokens] for name in names},
        state_norm={"mamba.tiny": [{"position": 2**n, "norm": 1.0 + n} for n in range(4)]},
        router_load={"mamba.tiny": [{"tokens": n, **ends} for n in tokens]},
        grad_norms={"mamba.tiny": [{"tokens": n, "role": role, "norm": 100 / n} for n in tokens for role in roles]},
    )


LOGGED = _logged()
