"""Reduction of a model for the checks: sizes, depth, variants."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import lmzoo
from lmzoo import configs
from lmzoo.configs import require
from lmzoo.conformance import CHECKS, Subject, check_model, run_check, subject
from lmzoo.conformance.sizes import TINY
from lmzoo.conformance.tiny import perturb
from lmzoo.errors import ConfigError
from tests.conformance.test_sizes import Pattern, PatternConfig
from tests.museum.base import CellConfig, MuseumConfig, Recurrent, Transformer


def test_subject_reduces_a_preset() -> None:
    config = subject("gpt2.124m").config
    assert config.d_model == 32
    assert config.n_layers == 2
    assert config.vocab_size == TINY.vocab_size
    assert config.context_length == TINY.context_length


def test_subject_of_a_family_is_as_deep_as_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset `tiny` with two layers does not hide the third kind of block."""
    import lmzoo
    from lmzoo.registry import Family, Preset

    family = Family("deep", presets={"tiny": Preset("tiny", model={"n_layers": 2})})
    monkeypatch.setattr(lmzoo.registry, "families", lambda: {"deep": family})
    monkeypatch.setattr(Pattern, "family", "deep")
    assert subject(Pattern).config.n_layers == 3  # type: ignore[attr-defined]
    assert check_model(Pattern, only=["causality"]).failures == ["causality"]


def test_subject_copies_an_instance_that_is_small_except_for_its_depth() -> None:
    model = Transformer(MuseumConfig(vocab_size=TINY.vocab_size, context_length=TINY.context_length, n_layers=3))
    model.blocks[2].attention.mask = lambda T, S: torch.ones(T, S, dtype=torch.bool)
    assert subject(model).config.n_layers == 3  # type: ignore[attr-defined]
    assert check_model(model, only=["causality"]).failures == ["causality"]
    wide = Pattern(PatternConfig(vocab_size=TINY.vocab_size, d_model=64, n_layers=5))
    assert subject(wide).config.n_layers == 3  # type: ignore[attr-defined]


def test_model_is_perturbed_unless_asked() -> None:
    plain, perturbed = (subject(Transformer).model(perturbed=wanted) for wanted in (False, True))
    assert (plain.norm.weight == 1).all()
    assert not (perturbed.norm.weight == 1).any()


def test_two_texts_differ_at_every_position() -> None:
    idx, other = subject("bigram").two_texts(3, 9)
    assert idx.shape == other.shape == (3, 9)
    assert (idx != other).all()
    assert max(idx.max(), other.max()) < TINY.vocab_size
    assert min(idx.min(), other.min()) >= 0


def test_own_tokens_are_of_the_vocabulary_of_the_callers_model() -> None:
    own = subject(Transformer(MuseumConfig(vocab_size=50, n_layers=1)))
    tokens = own.own_tokens(3, 40)
    assert tokens.shape == (3, 40)
    assert TINY.vocab_size <= tokens.max() < 50
    assert torch.equal(tokens, own.own_tokens(3, 40))


def test_varied_inverts_booleans_together_and_switches_options_on() -> None:
    gpt2 = subject("gpt2")
    assert [variant.name for variant in gpt2.varied()] == ["gpt2 with bias=False, tie_embeddings=False"]
    assert gpt2.varied() is gpt2.varied(), "made once"
    assert gpt2.varied()[0].is_variant
    assert not gpt2.is_variant
    names = [variant.name for variant in subject("llama").varied()]
    assert "llama with window=5" in names
    switched = "tie_embeddings=True, mlp_bias=True, qk_norm=True, late_qk_norm=True, post_norms=True"
    assert f"llama with {switched}, norm_weight=False, embedding_norm=True" in names
    assert "llama with gate=True, sinks=True" in names
    receptive = next(check for check in CHECKS if check.name == "receptive_field")
    assert "window=5" in run_check(receptive, subject("llama")).saw


@dataclass(frozen=True, kw_only=True)
class OptionalConfig(MuseumConfig):
    window: int | None = 4
    width: int | None = None  # a default that depends on others

    def __post_init__(self) -> None:
        super().__post_init__()
        configs.set_default(self, "width", self.d_model)


def test_varied_switches_off_what_can_be_none() -> None:
    class Optional(Transformer):
        config_class = OptionalConfig

    names = [variant.name.split(" with ")[1] for variant in subject(Optional).varied()]
    assert names == ["tie_embeddings=True", "window=5", "window=None"]


@dataclass(frozen=True, kw_only=True)
class ExclusiveConfig(CellConfig):
    one: bool = False
    other: bool = False
    third: bool = False

    def __post_init__(self) -> None:
        require(not (self.one and self.other), "one and other exclude each other")


class Exclusive(Recurrent):
    config_class = ExclusiveConfig


def test_varied_inverts_booleans_in_a_few_variants_where_the_config_refuses_all() -> None:
    names = [variant.name for variant in subject(Exclusive).varied()]
    assert names == ["Exclusive with one=True, third=True", "Exclusive with other=True"]


def test_varied_adds_the_variants_in_checked_with_their_own_depth() -> None:
    forms = subject(Pattern).varied()
    assert [form.name for form in forms] == ["Pattern with pattern=rrrra", "Pattern with pattern=r, d_model=8"]
    assert [form.config.n_layers for form in forms] == [5, 2]  # type: ignore[attr-defined]
    assert forms[1].config.d_model == 8  # type: ignore[attr-defined]


def test_varied_leaves_out_a_variant_in_checked_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatternConfig, "checked", ({"pattern": "r"}, {"pattern": PatternConfig.pattern}))
    assert [form.name for form in subject(Pattern).varied()] == ["Pattern with pattern=r"]


def test_varied_refuses_a_variant_that_the_config_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatternConfig, "checked", ({"pattern": "rx"},))
    with pytest.raises(ConfigError, match="pattern='rx' must be made of"):
        subject(Pattern).varied()


def test_perturb_moves_every_parameter_and_follows_the_seed() -> None:
    checked = subject(Transformer)
    plain, moved = checked.model(perturbed=False), checked.model(perturbed=False)
    perturb(moved, seed=3)
    for before, after in zip(plain.parameters(), moved.parameters(), strict=True):
        assert not torch.isclose(before, after, rtol=0, atol=1e-7).all()
    again = checked.model(perturbed=False)
    perturb(again, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(moved.parameters(), again.parameters(), strict=True))


def test_subject_model_has_no_dropout_by_default() -> None:
    checked = subject("gpt2")
    idx = checked.tokens(1, 5)
    off, on = (checked.model(dropout=p).train() for p in (0.0, 0.5))
    assert torch.equal(off(idx).logits, off(idx).logits)
    assert not torch.equal(on(idx).logits, on(idx).logits)


def test_subject_model_sets_rates_that_are_plain_numbers_and_no_other_number() -> None:
    class Numbers(Recurrent):
        def __init__(self, config: CellConfig) -> None:
            super().__init__(config)
            self.cells[0].attention_dropout, self.cells[0].scale = 0.3, 2.0

    cell = subject(Numbers).model(dropout=0.1).cells[0]
    assert (cell.attention_dropout, cell.scale) == (0.1, 2.0)


def test_large_has_a_form_with_a_window_and_in_a_thorough_check_all_variants() -> None:
    checked = subject("llama")
    assert [form.name for form in checked.large()] == [
        "llama in its large form",
        "llama with window=70 in its large form",
    ]
    thorough = subject("llama")
    thorough.thorough = True
    assert "llama with gate=True, sinks=True in its large form" in [form.name for form in thorough.large()]


@dataclass(frozen=True, kw_only=True)
class PowerOfTwoConfig(CellConfig):
    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.context_length.bit_count() == 1, "context_length must be a power of two")


def test_large_takes_a_power_of_two_for_a_context_length() -> None:
    class PowerOfTwo(Recurrent):
        config_class = PowerOfTwoConfig

    assert [form.context for form in Subject(PowerOfTwo, {"context_length": 16}, "x").large()] == [512]


def test_neighbors_differ_in_one_field() -> None:
    checked = subject("gpt2")
    for name, config in checked.neighbors():
        now, then = configs.to_dict(checked.config), configs.to_dict(config)
        assert [field for field in now if now[field] != then[field]] == [name]
    assert {"d_model", "n_layers", "n_heads", "context_length", "bias", "dropout"} <= {
        n for n, _ in checked.neighbors()
    }
    assert "context_length" not in [name for name, _ in subject("llama").neighbors()]
    heads = [config.n_heads for name, config in checked.neighbors() if name == "n_heads"]  # type: ignore[attr-defined]
    assert heads == [8, 2, 1], "twice, half and one; the width is no multiple of 5"


def test_perturb_fits_a_model_without_parameters_to_a_text_of_the_seed() -> None:
    first, same, other = (subject("ngram").model(seed=seed) for seed in (1, 1, 2))
    idx = subject("ngram").tokens(2, 9)
    assert torch.equal(first(idx).logits, same(idx).logits)
    assert not torch.allclose(first(idx).logits, other(idx).logits)


def test_perturb_adds_noise_of_the_documented_size() -> None:
    config = MuseumConfig(vocab_size=4000, d_model=16)
    plain, moved, less = (Transformer(config) for _ in range(3))
    for model in (moved, less):
        model.load_state_dict(plain.state_dict())
    perturb(moved)
    perturb(less, scale=0.1)

    def noise(model: Transformer, name: str) -> float:
        return (model.get_parameter(name) - plain.get_parameter(name)).std().item()

    assert noise(moved, "tokens.weight") == pytest.approx(16**-0.5, rel=0.02)  # (4000, 16)
    assert noise(less, "tokens.weight") == pytest.approx(0.1 * 16**-0.5, rel=0.02)
    assert noise(moved, "norm.weight") == pytest.approx(0.1, rel=0.5)


def test_varied_leaves_out_what_the_settings_of_a_caller_exclude() -> None:
    model = lmzoo.create_model(
        "llama.tiny", vocab_size=13, rope_scaling="dynamic factor=2 original=8", query_growth=0.5
    )
    names = [form.name for form in subject(model).varied()]
    assert any("mlp=relu2" in name for name in names)
    assert not any("late_qk_norm=True" in name for name in names), "refused beside query_growth"
