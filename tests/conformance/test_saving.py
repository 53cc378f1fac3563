"""Checks of saving and loading; all families are loaded by one fresh process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.conformance import Fault, check_model, saving, subject
from lmzoo.conformance.fresh import FreshProcess, answer_all
from lmzoo.conformance.tiny import Sent
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.state import State
from tests.conformance.test_suite import Plain
from tests.museum.base import CellConfig, Learned, MuseumConfig, Recurrent, Transformer

FAMILIES = sorted(registry.families())


def test_save_and_load_in_one_fresh_process_for_all_families(tmp_path: Path) -> None:
    """Does the same as `save_and_load`, but with one process for all families, because starting one is slow."""
    expected = {}
    for target in [*FAMILIES, Transformer, Learned, Recurrent, Plain]:
        checked = subject(target)
        path = tmp_path / checked.name
        path.mkdir()
        expected[path] = saving.save_request(checked, path)
    with FreshProcess() as process:
        process.load(expected)
    for path, logits_BTV in expected.items():
        saving.require_loaded(path, logits_BTV)


def test_save_and_load_uses_this_process_for_a_class_that_cannot_be_imported() -> None:
    class Local(Transformer):
        pass

    (result,) = check_model(Local, only=["save_and_load"]).results
    assert result.passed
    assert "in this process" in result.saw


def test_save_and_load_finds_a_model_that_depends_on_when_it_was_built() -> None:
    class Counted(Transformer):
        built = 0

        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            type(self).built += 1
            self.number = self.built

        def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
            return super().embed(idx_BT, position, state) * self.number

    (result,) = check_model(Counted, only=["save_and_load"]).results
    assert result.saw.startswith("the loaded model is off by")


def test_require_loaded_reports_an_error_and_other_logits(tmp_path: Path) -> None:
    checked = subject(Transformer)
    logits_BTV = saving.save_request(checked, tmp_path)
    answer_all([tmp_path])
    saving.require_loaded(tmp_path, logits_BTV)
    with pytest.raises(Fault, match="the loaded model is off by"):
        saving.require_loaded(tmp_path, logits_BTV + 1e-3)
    (tmp_path / "error.txt").write_text("KeyError: 'x'")
    with pytest.raises(Fault, match="a fresh process cannot load the saved model: KeyError: 'x'"):
        saving.require_loaded(tmp_path, logits_BTV)


def test_meta_device_compares_shapes_and_logits() -> None:
    class Grows(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            rows = 2 if self.tokens.weight.is_meta else 3
            self.register_buffer("table", torch.zeros(rows))

    result = check_model(Grows, only=["meta_device"]).results[0]
    assert "table is (2,) torch.float32 on meta, and (3,) torch.float32 when built on cpu" in result.saw


def test_save_and_load_starts_a_process_if_none_was_started_before() -> None:
    assert saving.save_and_load(subject(Transformer)) == "bitwise equal logits in a fresh process"


def test_save_and_load_compares_the_answer_of_a_process_that_was_started_before() -> None:
    class Answered(FreshProcess):
        def __init__(self) -> None:
            pass

        def end_loading(self) -> None:
            (Path(folder.name) / "error.txt").write_text("KeyError: 'x'")

    checked, folder = subject(Transformer), tempfile.TemporaryDirectory()
    checked.fresh_process, checked.sent = Answered(), Sent(folder, torch.zeros(1))
    with folder, pytest.raises(Fault, match="a fresh process cannot load the saved model: KeyError: 'x'"):
        saving.save_and_load(checked)


def test_tied_weights_accepts_a_module_under_two_names() -> None:
    class OneNorm(Recurrent):
        def __init__(self, config: CellConfig) -> None:
            super().__init__(config)
            self.last_norm = self.norm

    (result,) = check_model(Transformer, only=["tied_weights"]).results
    assert result.saw.startswith("no shared parameters, as the config says; also with tie_embeddings=True")
    (result,) = check_model(OneNorm, only=["tied_weights"]).results
    assert result.saw == "1 groups of shared parameters, kept through load and cast"


def test_tied_weights_refuses_a_parameter_of_two_modules_in_a_variant() -> None:
    class OneTable(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            if config.tie_embeddings:
                self.head = Linear(config.d_model, config.vocab_size, bias=False)
                self.head.weight = self.tokens.weight

    (result,) = check_model(OneTable, only=["tied_weights"]).results
    assert "with tie_embeddings=True: tokens.weight and head.weight are one parameter that two modules" in result.saw


def test_contiguous_has_a_shared_tensor_once_and_each_tensor_without_values() -> None:
    module = torch.nn.Module()
    module.first = module.second = torch.nn.Parameter(torch.ones(2))
    for name in ("none", "nothing"):
        module.register_buffer(name, torch.zeros(0))
    assert list(saving._contiguous(module)) == ["first", "none", "nothing"]


def test_meta_device_compares_layers_with_layers_inside() -> None:
    class Outer(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.scale, self.inner = torch.nn.Parameter(torch.ones(width)), RMSNorm(width)

        def init_parameters(self, generator: torch.Generator | None) -> None:
            torch.nn.init.ones_(self.scale)

        def forward(self, x_BTD: Tensor) -> Tensor:
            return self.scale * self.inner(x_BTD)

    class Nested(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.norm = Outer(config.d_model)

    (result,) = check_model(Nested, only=["meta_device"]).results
    assert result.passed, result.saw


def test_tied_weights_accepts_features_that_are_logits_already() -> None:
    class Logits(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.table = self.head
            self.head = nn.Identity()

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return self.table(x_BTD), state

    tied = subject(Logits)._with({"tie_embeddings": True})
    assert saving.tied_weights(tied) == "no shared parameters, as the config says"  # the head reads those of the table
