"""Tests the budget of a comparison: one amount for all models, turned into steps by the cost of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmzoo.bench.train import bench_train
from lmzoo.compare import budget as module
from lmzoo.compare import compare
from lmzoo.compare.budget import SPEEDS_FILE, Budget, Speeds, parse_budget, spend, tokens_per_step
from lmzoo.compare.plan import make_specs
from lmzoo.compare.table import summary
from lmzoo.data.isolated_batches import IsolatedBatches
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError
from lmzoo.losses import IGNORE_INDEX

SETTINGS = {"batch_size": 4, "context_length": 16}
SMALL = SETTINGS | {"d_model": 16, "n_layers": 1, "n_heads": 2}
V = 65


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the speed for a budget in seconds in a shorter time."""
    monkeypatch.setattr(bench_train, "__kwdefaults__", {**bench_train.__kwdefaults__, "block_seconds": 0.02})


def steps(names: list[str], text: str, speed: Any = None) -> dict[str, int]:
    settings = SETTINGS | ({"gpt2.d_model": 16, "gpt2.n_layers": 1, "gpt2.n_heads": 2} if "gpt2" in names else {})
    specs = spend(make_specs(names, "x.txt", "char", settings), parse_budget(text), V, speed)
    return {spec.model: spec.train.steps for spec in specs}


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("tokens=5M", "tokens", 5e6),
        ("steps=10", "steps", 10),
        ("flops=1e12", "flops", 1e12),
        ("seconds=1.5", "seconds", 1.5),
    ],
)
def test_parse_budget(text: str, kind: str, amount: float) -> None:
    assert parse_budget(text) == Budget(kind, amount)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5M", r"budget='5M' must have the form KIND=NUMBER"),
        ("token=5M", r"budget='token=5M': 'token' is not a budget; did you mean 'tokens'"),
        ("tokens=", r"budget='tokens=': '' must be a number above 0"),
        ("tokens=-3", r"'-3' must be a number above 0"),
        ("tokens=0", r"'0' must be a number above 0"),
    ],
)
def test_parse_budget_refuses(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_budget(text)


def test_spend_gives_the_largest_number_of_whole_steps() -> None:
    assert steps(["bigram", "mlp"], "steps=7") == {"bigram": 7, "mlp": 7}
    assert steps(["bigram", "mlp"], "tokens=640") == {"bigram": 10, "mlp": 10}
    assert steps(["bigram", "mlp"], "tokens=703") == {"bigram": 10, "mlp": 10}
    assert steps(["bigram", "mlp"], "tokens=704") == {"bigram": 11, "mlp": 11}


def test_spend_divides_flops_by_the_cost_of_each_model() -> None:
    found = steps(["mlp", "gpt2"], "flops=1G")
    for name in ("mlp", "gpt2"):
        (spec,) = make_specs([name], "x.txt", "char", SETTINGS if name == "mlp" else SMALL)
        per_step = 3 * 64 * spec.make_model(V, device="meta").flops_per_token(16)
        assert found[name] * per_step <= 1e9 < (found[name] + 1) * per_step
    assert len(set(found.values())) == 2


def test_spend_divides_seconds_by_the_measured_speed() -> None:
    speeds = {"mlp": 6400.0, "gpt2": 640.0}
    assert steps(["mlp", "gpt2"], "seconds=2", lambda spec: speeds[spec.model]) == {"mlp": 200, "gpt2": 20}


def test_spend_gives_a_model_without_a_cost_the_steps_of_the_longest() -> None:
    found = steps(["ngram", "mlp"], "flops=1G")
    assert found["ngram"] == found["mlp"] > 1
    with pytest.raises(ConfigError, match=r"budget flops=1e\+09: no model has a cost in flops: give tokens"):
        steps(["ngram"], "flops=1G")


@pytest.mark.parametrize("text", ["tokens=63", "steps=0.5", "flops=10", "seconds=1e-4"])
def test_spend_refuses_less_than_one_step(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is too small for one evaluation: one step of mlp reads 64 tokens"
    ) as caught:
        steps(["mlp"], text, lambda spec: 6400.0)
    assert "\n" not in str(caught.value)
    needed = str(caught.value).rpartition(" ")[2]
    assert steps(["mlp"], needed, lambda spec: 6400.0) == {"mlp": 1}, f"{needed} is what it asks for"


def test_speeds_are_measured_once_and_kept_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(
        module, "measure_speed", lambda model, spec: measured.append(spec.model) or 100.0 * len(measured)
    )
    bigram, mlp = make_specs(["bigram", "mlp"], "x.txt", "char", SETTINGS)
    out = tmp_path / "out"
    speeds = Speeds(out, V)
    assert [speeds.of(spec) for spec in (bigram, mlp, bigram)] == [100.0, 200.0, 100.0]
    assert not out.exists()
    speeds.write()
    assert [Speeds(out, V).of(spec) for spec in (mlp, bigram)] == [200.0, 100.0]
    assert Speeds(out, V, "another machine").of(bigram) == 300.0
    (out / SPEEDS_FILE).write_text("[3]")
    assert Speeds(out, V).of(bigram) == 400.0


def test_compare_refuses_a_budget_before_it_writes_the_speeds(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seconds=1e-09 is too small for one evaluation"):
        compare(["bigram"], str(text), tmp_path / "out", budget="seconds=1e-9", settings=SETTINGS)
    assert not (tmp_path / "out").exists()


def test_measure_speed_measures_the_trainer() -> None:
    (spec,) = make_specs(["bigram"], "x.txt", "char", SETTINGS)
    assert module.measure_speed(spec.make_model(V), spec) > 1000


def test_compare_with_a_budget(text: Path, tmp_path: Path) -> None:
    results = compare(["mlp", "bigram"], str(text), tmp_path / "a", budget="tokens=300", settings=SETTINGS)
    assert results.budget == {
        "kind": "tokens", "amount": 300.0, "steps": 4, "batch_size": 4, "context_length": 16, "documents": "joined",
        "tokens": 256,
    }  # fmt: skip
    assert {row.name: (row.steps, row.tokens) for row in results.models} == {"mlp": (4, 256), "bigram": (4, 256)}
    assert "4 steps of 4 x 16 tokens for every model" in summary(results)
    flops = compare(["mlp", "gpt2"], str(text), tmp_path / "b", budget="flops=200M", settings=SMALL)
    rows = {row.name: row for row in flops.models}
    assert rows["mlp"].tokens != rows["gpt2"].tokens
    assert flops.budget["tokens"] == max(row.tokens for row in flops.models)
    for row in rows.values():
        assert row.curve[-1][0] == row.tokens
        assert 3 * row.flops_per_token * row.tokens <= 2e8 < 3 * row.flops_per_token * (row.tokens + 64)
    assert "200 M training FLOPs in steps of 4 x 16 tokens for every model" in summary(flops)
    assert "as far as its budget went" in (tmp_path / "b" / "report.html").read_text()


def test_compare_refuses_a_budget_beside_steps(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for settings in ({"steps": 3}, {"train.steps": 3}):
        with pytest.raises(ConfigError, match=r"budget='tokens=300' cannot be given: the setting steps is given"):
            compare(["bigram"], str(text), out, budget="tokens=300", settings=SETTINGS | settings)
    with pytest.raises(ConfigError, match="too small for one evaluation"):
        compare(["bigram"], str(text), out, budget="tokens=3", settings=SETTINGS)
    assert not out.exists()


def test_tokens_per_step_of_isolated_documents_is_the_mean_without_padding() -> None:
    (spec,) = make_specs(["mlp"], "x.txt", "char", SETTINGS | {"documents": "isolated", "grad_accumulation": 2})
    ends = np.cumsum([5, 40, 3, 3, 9, 17, 30, 2] * 5)
    train = TokenSplit("sea", "train", np.zeros(int(ends[-1])), int(ends[-1]), 1, 1, ends)
    batches = IsolatedBatches(train, 4, 16, spec.train.seed)
    targets = [int((batches.batch(n)[1] != IGNORE_INDEX).sum()) for n in range(batches.batches_per_epoch)]
    per_step = tokens_per_step(spec, V, train)
    assert per_step == pytest.approx(2 * sum(targets) / len(targets))
    assert per_step < 2 * 4 * 16
    assert tokens_per_step(make_specs(["mlp"], "x.txt", "char", SETTINGS)[0], V) == 64
    steps = {
        text: spend([spec], parse_budget(text), V, lambda spec: 6400.0, train)[0].train.steps
        for text in (f"tokens={10 * per_step}", f"tokens={10 * per_step - 1}", "seconds=2")
    }
    assert list(steps.values()) == [10, 9, 100], "seconds are those of the padded rows"
