"""Invented results for the tests of table and report: every kind of row, and texts that must be escaped."""

from __future__ import annotations

import dataclasses
import math

from lmzoo.compare.results import CellResult, ModelResult, Reference, Results
from lmzoo.compare.statistics import analyze


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
