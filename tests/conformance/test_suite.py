"""`check_model` with models, classes, names and a listener; the caller's model and settings stay unchanged."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from typing import ClassVar
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.conformance import CHECKS, RANKING_GROUPS, Result, Subject, check_model, explanation, subject, suite
from lmzoo.conformance.sizes import TINY
from lmzoo.errors import ConfigError, UnknownModelError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.state import State
from tests.museum.base import MuseumConfig, Transformer


class Plain(LanguageModel):
    """A model as a user may write it: torch's own layers, no state, nothing declared."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, 8)
        self.mix = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.mix(self.table(idx_BT))[0], state


class Raises(Plain):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        raise RuntimeError("not today")


class Broken(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        raise RuntimeError("no such thing")

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        raise NotImplementedError


def test_check_model_takes_a_plain_class_that_declares_nothing() -> None:
    # test_saving has one process for all
    names = [check.name for check in CHECKS if check.name != "save_and_load" and not check.needs_instance]
    report = check_model(Plain, only=names)
    assert report.failures in ([], ["initial_loss"]), str(report)  # torch draws its own initial weights
    assert [result.name for result in report.results] == names


def test_check_model_says_what_a_passed_check_saw() -> None:
    report = check_model("bigram", only=["shapes"])
    assert report.results[0].saw.startswith("(B, T, 13) with and without targets")
    assert 0 < report.results[0].seconds <= report.seconds + 1e-3 < 100


def test_check_model_gives_the_same_for_a_name_a_class_and_a_model() -> None:
    small = lmzoo.create_model("bigram", vocab_size=TINY.vocab_size, context_length=TINY.context_length)
    reports = [check_model(target, only=["shapes"]) for target in ("bigram", type(small), small)]
    assert len({json.dumps(dict(report.config)) for report in reports}) == 1
    assert all(report.passed for report in reports)


def test_check_model_leaves_the_callers_model_unchanged() -> None:
    model = lmzoo.create_model(
        "gpt2", vocab_size=TINY.vocab_size, context_length=TINY.context_length, d_model=32, n_layers=2, n_heads=4
    ).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    check_model(model, only=["causality", "gradients", "global_state", "compiles"])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_check_model_sees_a_change_to_the_instance() -> None:
    model = Transformer(subject(Transformer).config)
    assert check_model(model, only=["causality"]).passed
    for block in model.blocks:
        block.attention.mask = lambda T, S: torch.ones(T, S, dtype=torch.bool)
    assert check_model(model, only=["causality"]).failures == ["causality"]
    model.forward = model.forward
    assert check_model(model, only=["finals"]).failures == ["finals"]


def test_check_model_calls_the_listener_with_each_result() -> None:
    heard: list[Result] = []
    report = check_model("bigram", only=["shapes", "causality"], listener=heard.append)
    assert tuple(heard) == report.results


def test_check_model_stops_when_the_model_cannot_be_constructed() -> None:
    report = check_model(Broken)
    assert report.failures == ["construction"]
    assert "RuntimeError: no such thing" in report.results[0].saw
    assert not report.rankable


def test_check_model_names_an_exception_once() -> None:
    report = check_model(Raises, only=["construction", "shapes", "same_seed", "causality"])
    assert report.failures == ["shapes", "same_seed", "causality"]
    assert "RuntimeError: not today" in report.results[2].saw
    assert report.results[3].saw == "raised the same exception as same_seed"
    assert report.causes == ["shapes"]


def test_check_model_says_what_a_state_dict_lacks() -> None:
    class Grows(Transformer):
        """Keeps a table that grows with the longest text, so that a used model has another shape than a fresh one."""

        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.register_buffer("seen", torch.zeros(1))

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            self.seen = torch.zeros(max(len(self.seen), idx_BT.shape[1]))
            return super().features(idx_BT, state)

    (result,) = check_model(Grows, only=["changed_weights"]).results
    assert "raised RuntimeError: Error(s) in loading state_dict for Grows: size mismatch for seen" in result.saw


class TiedInNameAlone(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(replace(config, tie_embeddings=False))
        self.config = config


def test_check_model_runs_tied_weights_with_tied_embeddings_too() -> None:
    (result,) = check_model(TiedInNameAlone, only=["tied_weights"]).results
    assert "tie_embeddings=True: the config says tie_embeddings=True, but the head's weight is not" in result.saw


def test_check_model_runs_train_mode_with_variants() -> None:
    class ScalesInAWindow(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (1.01 * x_BTD if self.training and self.config.window is not None else x_BTD), state

    (result,) = check_model(ScalesInAWindow, only=["train_mode"]).results
    assert result.saw.startswith("ScalesInAWindow with window=5: train mode without dropout, against eval mode, is off")


@dataclass(frozen=True, kw_only=True)
class FragileConfig(MuseumConfig):
    def __post_init__(self) -> None:
        super().__post_init__()
        assert (True,)[int(self.tie_embeddings)]  # an IndexError if the embeddings are tied


def test_check_model_reports_a_config_that_raises_another_error_for_a_variant() -> None:
    class Fragile(Transformer):
        config_class = FragileConfig

    report = check_model(Fragile, only=["construction", "shapes", "receptive_field"])
    assert [result.name for result in report.results] == ["construction", "shapes", "receptive_field"]
    assert report.failures == ["receptive_field"]
    assert report.results[-1].saw.startswith("a variant of the config raised IndexError: tuple index out of range at ")


def test_check_model_refuses_what_names_no_checks() -> None:
    for only in ([], "causality", True):
        with pytest.raises(ConfigError, match="must be a list of names of checks, such as"):
            check_model("bigram", only=only)
    with pytest.raises(ConfigError, match="is no check"):
        check_model("bigram", only=[b"causality"])


def test_check_model_is_not_thorough_by_default() -> None:
    default, brief, thorough = (
        check_model("bigram", only=["random_shapes"], **options).results[0].saw
        for options in ({}, {"thorough": False}, {"thorough": True})
    )
    assert default == brief != thorough


def test_explanation_is_the_docstring_of_the_check() -> None:
    assert explanation("shapes").startswith("shapes (group contract): Checks the shapes of logits and loss")
    with pytest.raises(ConfigError, match="did you mean 'shapes'"):
        explanation("shape")


def test_check_model_says_that_a_model_is_rankable_only_if_all_of_these_checks_ran() -> None:
    assert check_model("bigram", only=["meta_device"]).rankable is None
    ranking = [check.name for check in CHECKS if check.group in RANKING_GROUPS]
    assert check_model("bigram", only=ranking).rankable is True


def test_check_model_refuses_unknown_targets_and_names() -> None:
    with pytest.raises(UnknownModelError, match="gpt2"):
        check_model("gtp2")
    with pytest.raises(ConfigError, match="did you mean 'causality'"):
        check_model("bigram", only=["causalty"])
    with pytest.raises(ConfigError, match="must be a registered name"):
        check_model(3)  # type: ignore[arg-type]


def test_checks_have_unique_names_and_docstrings() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.run.__doc__ for check in CHECKS)


class Divided:
    """Takes the place of the second process: runs the last check, and has its result at `join`."""

    started: ClassVar[list[list[str]]] = []

    def __init__(self, process: object, checked: Subject, waiting: deque[str], found: dict[str, Result]) -> None:
        self.started.append(list(waiting))
        self.name, self.found = waiting.pop(), found

    def join(self) -> None:
        self.found[self.name] = Result(self.name, "a group", True, "in the second process", 0.0)


def test_check_model_divides_the_checks_and_waits_for_the_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "FreshProcess", Mock)
    monkeypatch.setattr(suite, "Beside", Divided)
    monkeypatch.setattr(Divided, "started", [])
    names = ["construction", "shapes", "same_seed", "chunked_loss", "flops"]
    for processes in (1, 2):
        report = check_model("bigram", only=names, processes=processes)
        assert [result.name for result in report.results] == names
        assert (report.results[-1].saw == "in the second process") == (processes == 2)
    assert Divided.started == [["shapes", "same_seed", "chunked_loss", "flops"]], "those that need the compiler last"


def test_check_model_starts_no_second_process_for_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Mock()
    monkeypatch.setattr(suite, "FreshProcess", started)
    assert check_model("bigram", only=["shapes"], processes=2).passed
    assert not started.called
