"""Measures decoding speed, compared with the memory bandwidth: each token needs all weights to be read once.

All variants are timed in turns within one process, so that transient load affects all of them equally; figures are
medians. Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lmzoo.generation.choice import Choice
from lmzoo.hardware import hardware, interleaved, read_bandwidth, versions
from lmzoo.inference import FORMS, decoding_copy, weight_bytes_per_token
from lmzoo.model import LanguageModel
from lmzoo.randomness import row_seeds, uniforms
from lmzoo.sampling import SamplingConfig
from lmzoo.state import clone, nbytes

SCHEMA = 1
EVERYTHING = SamplingConfig(  # all logits processors switched on: the largest cost of the sampler
    temperature=0.8,
    top_k=50,
    top_p=0.9,
    min_p=0.01,
    typical_p=0.95,
    repetition_penalty=1.1,
    frequency_penalty=0.1,
    presence_penalty=0.1,
    logit_bias={0: 1.0},
)


def greedy(model: LanguageModel, rows: int, tokens: int) -> Callable[[], Tensor]:
    """Return a function that generates `tokens` greedy tokens from a prompt of one token, for `rows` rows at once."""
    idx_BT = torch.zeros(rows, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)  # leaves the global random state alone
    return lambda: model.generate(idx_BT, tokens, temperature=0.0, generator=generator)


def forms_of(model: LanguageModel, rows: int, *, compiled: bool) -> dict[str, LanguageModel]:
    """Return the model itself, named by its dtype, and its copies for decoding; compiled int8 needs `rows` = 1.

    A model without parameters has none: they would be the model itself.
    """
    forms = {str(model.dtype).removeprefix("torch."): model}
    if not model.num_params():
        return forms
    forms |= {f"{weights} packed": decoding_copy(model, weights, rows=rows) for weights in FORMS}
    for weights in FORMS if compiled and rows == 1 else FORMS[:1] if compiled else ():
        forms[f"{weights} compiled"] = decoding_copy(model, weights, rows=rows, compiled=True)
    return forms


def bench_decode(
    model: LanguageModel,
    *,
    rows: int = 1,
    tokens: int = 64,
    repeats: int = 5,
    compiled: bool = True,
    bandwidth_bytes: int = 1 << 30,
    peers: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Any]:
    """Measure the decoding speed of a model (in eval mode, on the CPU) for each format of its weights, as JSON values.

    With `compiled`, also measures compiled copies; compilation takes 10 to 60 seconds each. `peers` are other
    implementations that generate `rows` times `tokens` tokens, timed in the same rounds. Each result has milliseconds
    per step and tokens/s of all rows. Results of lmzoo also have `weight_bytes`, the bytes of weights read per step;
    `share_of_bandwidth`, the rate of reading them divided by the memory bandwidth; and `loss_above`, the loss (nats per
    token) minus the loss of the unchanged model, on 256 tokens (at most its context) that the model generated.
    `sampler` is the cost of sampling with all logits processors, for the fastest format.
    """
    forms = forms_of(model, rows, compiled=compiled)
    works: dict[str, Callable[[], object]] = {name: greedy(form, rows, tokens) for name, form in forms.items()}
    works.update(peers or {})
    before = read_bandwidth(bandwidth_bytes)
    seconds = interleaved(works, repeats)
    bandwidth = max(before, read_bandwidth(bandwidth_bytes))  # the machine may be less busy at the end
    losses = own_losses(model, forms)
    results: list[dict[str, Any]] = []
    for name, spent in seconds.items():
        entry: dict[str, Any] = {"form": name, "ms_per_step": spent / tokens * 1e3}
        entry["tokens_per_s"] = rows * tokens / spent
        if name in forms:
            read = weight_bytes_per_token(forms[name])
            entry["weight_bytes"] = read
            entry["share_of_bandwidth"] = read / bandwidth / (spent / tokens)
            entry["loss_above"] = losses[name] - losses[next(iter(forms))]
        results.append(entry)
    fastest = min(forms, key=lambda name: seconds[name])
    return {
        "schema": SCHEMA,
        "rows": rows,
        "tokens": tokens,
        "repeats": repeats,
        "bandwidth_bytes_per_s": bandwidth,
        "results": results,
        "sampler": sampler_cost(forms[fastest], seconds[fastest] / tokens, rows),
        "latency": latency(model) if model.traits.state_growth in ("none", "constant") else None,
        "machine": {**hardware(model.device), **versions()},
    }


def own_losses(model: LanguageModel, forms: Mapping[str, LanguageModel]) -> dict[str, float]:
    """Return the loss of each format in nats per token, on the same text: four rows that `model` generated."""
    generator = torch.Generator().manual_seed(0)
    start_BT = torch.zeros(4, 1, dtype=torch.long)
    text_BT = model.generate(start_BT, max(1, min(256, model.config.context_length) - 1), generator=generator)
    return {name: -float(form.score(text_BT).mean()) for name, form in forms.items()}


def sampler_cost(model: LanguageModel, step_seconds: float, rows: int, repeats: int = 20) -> dict[str, float]:
    """Measure milliseconds of sampling with all logits processors, and its share of a step that includes it.

    `step_seconds` is the time of a greedy step, including its (cheap) greedy sampling: the share is slightly too low.
    """
    vocab_size = model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(rows, vocab_size, generator=generator) * 3
    history_BT = torch.randint(vocab_size, (rows, 256), generator=generator)
    seeds_B = row_seeds(rows, generator)
    choice = Choice.make(EVERYTHING, rows)
    work = {"choose": lambda: choice.choose(logits_BV, history_BT, uniforms(seeds_B, torch.zeros_like(seeds_B)))}
    spent = interleaved(work, repeats)["choose"]
    return {"ms": spent * 1e3, "share": spent / (spent + step_seconds)}


def latency(model: LanguageModel, positions: Sequence[int] = (1000, 16000), steps: int = 200) -> list[dict[str, float]]:
    """Measure milliseconds per step and bytes of state at each position; medians of `steps` steps, taken in turns."""
    generator = torch.Generator().manual_seed(0)
    chunk = 500
    reached = []
    state, at = model.init_state(1, max(positions) + steps + 1), 0
    for position in sorted(positions):
        while at < position:
            size = min(chunk, position - at)
            idx_BT = torch.randint(model.config.vocab_size, (1, size), generator=generator)
            _, state = model.decode(idx_BT, state)
            at += size
        reached.append(clone(state))
    token_BT = torch.zeros(1, 1, dtype=torch.long)
    durations: list[list[float]] = [[] for _ in reached]
    for _ in range(steps):
        for number, state in enumerate(reached):
            began = time.perf_counter()
            _, reached[number] = model.decode(token_BT, state)
            durations[number].append(time.perf_counter() - began)
    return [
        {"position": position, "ms_per_step": median(spent) * 1e3, "state_bytes": nbytes(state)}
        for position, spent, state in zip(sorted(positions), durations, reached, strict=True)
    ]


def summary(result: Mapping[str, Any]) -> str:
    """Format the result of `bench_decode` as text."""
    best = result["bandwidth_bytes_per_s"] / 1e9
    lines = [f"{result['rows']} rows, {result['machine']['threads']} threads, memory read at {best:.1f} GB/s"]
    lines.append(f"{'form':24s} {'ms/step':>8s} {'tokens/s':>9s} {'of bandwidth':>12s} {'loss above':>10s}")
    for entry in result["results"]:
        ours = f"{entry['share_of_bandwidth']:11.0%}  {entry['loss_above']:+10.4f}" if "weight_bytes" in entry else ""
        lines.append(f"{entry['form']:24s} {entry['ms_per_step']:8.2f} {entry['tokens_per_s']:9.1f} {ours}".rstrip())
    if not result["results"][0].get("weight_bytes"):
        lines.append("no copies for decoding: the model has no weights")
    sampler = result["sampler"]
    lines.append(f"sampling with all logits processors: {sampler['ms']:.2f} ms, {sampler['share']:.0%} of a step")
    lines += [
        f"at position {int(at['position'])}: {at['ms_per_step']:.2f} ms a step, {int(at['state_bytes'])} bytes of state"
        for at in result["latency"] or []
    ]
    return "\n".join(lines)
