"""Tests of `lmzoo.matching`: models that meet a budget, for every registered family."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import pytest
import torch
from torch import nn

import lmzoo
from lmzoo import registry
from lmzoo.errors import ConfigError
from lmzoo.matching import MEASURES, RATIO, TOLERANCE, matched_config, measured, parse_match

FAMILIES = list(registry.families())
SCALED = [name for name in FAMILIES if registry.model_class(name).config_class.scaled]


@dataclass(frozen=True, kw_only=True)
class TableConfig(lmzoo.ModelConfig):
    scaled = {"d_model": 8, "d_ff": 8}  # noqa: RUF012 (a plain value, not a field)

    d_model: int = 64
    d_ff: int = 64
    n_heads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % self.n_heads:
            raise ConfigError(f"n_heads={self.n_heads} must divide d_model={self.d_model}")


class Table(lmzoo.LanguageModel):
    """A model with a simple number of parameters: 2 V d_model + 10 d_ff."""

    config_class = TableConfig
    config: TableConfig

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.extra = nn.Parameter(torch.zeros(10 * config.d_ff))
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def features(self, idx_BT, state=None):  # type: ignore[no-untyped-def]
        return self.tokens(idx_BT), state


@pytest.fixture
def table() -> Iterator[str]:
    """Register the model above under a name that is removed after the test."""
    lmzoo.register_model("table")(Table)
    yield "table"
    del registry._classes["table"]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("params=1M", ("params", 1e6)),
        ("params=350k", ("params", 350e3)),
        ("active=1.5B", ("active", 1.5e9)),
        ("non_embedding=2e6", ("non_embedding", 2e6)),
        ("params_non_embedding=2e6", ("non_embedding", 2e6)),
        ("flops=3g", ("flops", 3e9)),
        ("state=4096", ("state", 4096)),
    ],
)
def test_parse_match_reads_numbers_with_suffixes(match: str, expected: tuple[str, float]) -> None:
    assert parse_match(match) == expected


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("parms=1M", "match='parms=1M': 'parms' cannot be matched; did you mean 'params'?"),
        ("1M", "match='1M' must have the form MEASURE=NUMBER, as in 'params=1M'"),
        (1e6, "match=1000000.0 must have the form MEASURE=NUMBER"),
        ("params=", "match='params=': '' must be a number above 0, as in 1M, 350k, 1.5B or 2e6"),
        ("params=1Q", "match='params=1Q': '1Q' must be a number above 0"),
        ("params=0", "match='params=0': '0' must be a number above 0"),
        ("params=-3", "match='params=-3': '-3' must be a number above 0"),
        ("params=nan", "match='params=nan': 'nan' must be a number above 0"),
        ("params=1e999", "match='params=1e999': '1e999' must be a number above 0"),
    ],
)
def test_parse_match_names_what_is_wrong_in_one_line(match: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lmzoo.create_model("llama", vocab_size=65, match=match)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# One target for each family: a search builds tens of models.
@pytest.mark.parametrize(("name", "target"), [*zip(SCALED, cycle(["1M", "10M"]), strict=False)])
def test_matched_config_meets_parameters_and_keeps_proportions(name: str, target: str) -> None:
    match = matched_config(name, f"params={target}", vocab_size=65)
    assert abs(match.error) <= TOLERANCE
    # Widths of rwkv7 are multiples of 32, and d_ff is a small part of xlstm: their proportions change more.
    most = 1.25 if name in ("rwkv7", "xlstm") else RATIO
    assert 1 / most <= match.ratio <= most
    cls = registry.model_class(name)
    assert type(match.config) is cls.config_class
    assert registry.build_model(cls, match.config, device="meta").num_params() == match.value


def test_scaled_is_declared_by_every_family_with_a_width() -> None:
    for name in FAMILIES:
        cls = registry.model_class(name).config_class
        fields = {field.name for field in dataclasses.fields(cls)}
        assert set(cls.scaled) <= fields, f"{name} scales a field that it does not have"
        assert ("d_model" in fields) == ("d_model" in cls.scaled), name
        assert "d_ff" not in fields or "d_ff" in cls.scaled, f"{name} has a d_ff that does not grow with the width"


@pytest.mark.parametrize(("measure", "target"), [("non_embedding", 1e6), ("active", 1e6), ("flops", 2e6)])
@pytest.mark.parametrize("name", ["gpt2.1m", "mixtral", "mamba", "mlp"])
def test_matched_config_meets_other_measures(name: str, measure: str, target: float) -> None:
    match = matched_config(name, f"{measure}={target:.0f}", vocab_size=65)
    assert abs(match.error) <= TOLERANCE
    assert measured(lmzoo.create_model(name, **vars(match.config)), measure) == match.value


def test_matched_config_comes_as_near_to_a_state_as_widths_allow() -> None:
    match = matched_config("llama.1m", "state=500k", vocab_size=65)
    assert match.value == lmzoo.create_model("llama.1m", **vars(match.config)).state_bytes(128)
    narrower, wider = (
        lmzoo.create_model("llama.1m", vocab_size=65, d_model=match.config.d_model + step).state_bytes(128)
        for step in (-8, 8)
    )
    assert narrower < match.value < wider
    assert abs(match.value - 500e3) <= min(abs(narrower - 500e3), abs(wider - 500e3))
    assert match.ratio == pytest.approx(1, abs=0.02), "d_ff does not change the state and must not be tuned for it"


def test_measures_are_those_of_the_model() -> None:
    model = lmzoo.create_model("mixtral", vocab_size=65)
    T = model.config.context_length
    assert {measure: measured(model, measure) for measure in MEASURES} == {
        "params": model.num_params(),
        "non_embedding": model.num_params(embedding=False),
        "active": model.num_params(active=True),
        "flops": model.flops_per_token(T),
        "state": model.state_bytes(T),
    }


def test_matched_config_changes_nothing_but_scaled_fields() -> None:
    preset = lmzoo.create_model("llama.10m", vocab_size=65).config
    match = matched_config("llama.10m", "params=2M", vocab_size=65, window=32)
    changed = {f.name for f in dataclasses.fields(preset) if getattr(preset, f.name) != getattr(match.config, f.name)}
    assert changed == {"d_model", "d_ff", "window"}
    assert match.config.window == 32


def test_matched_config_derives_again_what_was_left_open() -> None:
    assert matched_config("mamba", "params=4M", vocab_size=65).config.dt_rank == 25  # 392 / 16, rounded up
    assert matched_config("mamba", "params=4M", vocab_size=65, dt_rank=5).config.dt_rank == 5
    for nothing in (None, "none"):
        assert matched_config("mamba", "params=4M", vocab_size=65, dt_rank=nothing).config.dt_rank == 25
        match = matched_config("llama.1m", "params=4M", vocab_size=65, d_ff=nothing, window=nothing)
        assert abs(match.error) <= TOLERANCE
        assert match.config.window is None


def test_matched_config_keeps_a_width_that_is_given() -> None:
    match = matched_config("gpt2", "params=1M", vocab_size=65, d_model=128)
    assert match.config.d_model == 128
    more = lmzoo.create_model("gpt2", vocab_size=65, d_model=128, d_ff=match.config.d_ff + 8).num_params()
    assert abs(match.value - 1e6) <= (more - match.value) / 2, "no other d_ff is nearer"
    assert match.ratio == match.config.d_ff / 512
    far = matched_config("gpt2", "params=4M", vocab_size=65, d_model=128)
    assert abs(far.error) <= TOLERANCE, "what is left free may move as far as it takes"
    with pytest.raises(ConfigError, match=r"leaves nothing to change in gpt2: d_model, d_ff given"):
        matched_config("gpt2", "params=1M", vocab_size=65, d_model=128, d_ff=512)


@pytest.mark.parametrize("n_heads", [3, 6, 7, 12])
def test_matched_config_finds_widths_that_heads_divide(n_heads: int) -> None:
    match = matched_config("llama", "params=10M", vocab_size=65, n_heads=n_heads)
    assert match.config.d_model % n_heads == 0
    assert abs(match.error) <= TOLERANCE


def test_matched_config_skips_widths_that_break_a_rule(table: str) -> None:
    match = matched_config(table, "params=20k", vocab_size=10, n_heads=11)
    assert match.config.d_model % 88 == 0
    assert abs(match.error) <= TOLERANCE


def test_matched_config_counts_exactly(table: str) -> None:
    """20 d_model + 10 d_ff = 30 * 1,000 has an exact solution in multiples of 8 with equal widths."""
    match = matched_config(table, "params=30k", vocab_size=10)
    assert (match.value, match.error) == (30000, 0)
    assert (match.config.d_model, match.config.d_ff, match.ratio) == (1000, 1000, 1)


def test_match_reports_how_far_the_last_field_moved(table: str) -> None:
    match = matched_config(table, "params=32k", vocab_size=10, d_model=1000)
    assert match.config.d_ff == 1200
    assert match.ratio == pytest.approx((1200 / 1000) / (64 / 1000))


@pytest.mark.parametrize(
    ("name", "match", "message"),
    [
        ("llama", "params=10", r"llama has at least 4,440 parameters \(at d_model=8, d_ff=24\); change n_layers"),
        ("mlp", "params=1e18", r"mlp has at most [\d,]+ parameters \(at d_model=65536, d_ff=786432\)"),
        ("mlp", "state=1M", r"mlp has 88 bytes of state, whatever d_model and d_ff"),
        ("bigram", "params=1M", r"leaves nothing to change in bigram: no field of its config grows with a width"),
    ],
)
def test_matched_config_says_when_a_target_is_out_of_reach(name: str, match: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^match='{match}'.* ?{message}") as caught:
        matched_config(name, match, vocab_size=65)
    assert "\n" not in str(caught.value)


def test_matched_config_raises_the_errors_of_create_model() -> None:
    with pytest.raises(ConfigError, match="d_modl=3 is not a setting"):
        matched_config("llama", "params=1M", vocab_size=65, d_modl=3)
    with pytest.raises(lmzoo.LmzooError, match="did you mean 'llama'"):
        matched_config("lama", "params=1M", vocab_size=65)


def test_create_model_with_match_draws_weights_once_and_from_the_generator() -> None:
    before = torch.get_rng_state()
    first, second = (
        lmzoo.create_model(
            "llama.tiny", vocab_size=65, match="params=200k", generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1)
    )
    assert torch.equal(torch.get_rng_state(), before), "the global random state was touched"
    assert first.num_params() == pytest.approx(200e3, rel=TOLERANCE)
    assert first.device.type == "cpu"
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
