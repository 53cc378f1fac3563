"""Tests evaluation with a carried context against one forward pass over each row of the text."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import lmzoo
from lmzoo import bounds
from lmzoo.data.documents import split_windows
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError, InputError
from lmzoo.model import LanguageModel
from lmzoo.state import State
from lmzoo.train import carried
from lmzoo.train.carried import carried_losses, evaluate_carried, require_carried, require_context, rows_of
from lmzoo.train.evaluate import evaluate
from tests.helpers import far_from_uniform, seeded

V, N, W = 13, 300, 16
TOKENS = torch.randint(V, (N,), generator=seeded(5)).numpy().astype(np.uint16)
JOINED = TokenSplit("text", "val", TOKENS, N, 2 * N, N)
ENDS = np.array([3, 4, 24, 90, 122, 122 + 2 * W + 1, 240, 256, 300])  # shorter than a window, two whole ones, more
ISOLATED = dataclasses.replace(JOINED, ends=ENDS)
FAMILIES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "llama": {},  # rotary positions
    "gemma3": {"window": 7},  # attention over all tokens, and over a window
    "hybrid": {},
    "mlp": {"window": 5},
    "bigram": {},
}


def model_of(family: str) -> LanguageModel:
    model = lmzoo.create_model(f"{family}.tiny", vocab_size=V, context_length=W, **FAMILIES.get(family, {}))
    return far_from_uniform(model, 0.3, seed=1).double()


def expected(model: LanguageModel, rows: list[tuple[int, int]]) -> np.ndarray:
    """Return the losses by the place of the target: of one forward pass over the tokens of each row (start, end)."""
    found = np.full(N, np.nan)
    model.eval()
    for start, end in (row for row in rows if row[1] - row[0] > 1):
        ids = torch.from_numpy(TOKENS[start:end].astype(np.int64))
        log_p = model(ids[None, :-1]).logits[0].log_softmax(-1)
        found[start + 1 : end] = -log_p.gather(1, ids[1:, None])[:, 0].detach()
    model.train()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_carried_losses_are_those_of_one_forward_pass(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family)
    assert carried_losses(model, JOINED) == pytest.approx(expected(model, [(0, N)])[1:], abs=1e-5)
    assert model.training, "as before"
    monkeypatch.setattr(carried, "LEAST_WINDOWS", 4)
    rows = [(0, 76), (75, 151), (150, 226), (225, 300)]  # the last token of a row is the first of the next one
    assert rows_of(JOINED, W).targets_N.tolist() == [75, 75, 75, 74]
    assert carried_losses(model, JOINED) == pytest.approx(expected(model, rows)[1:], abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_carried_losses_of_isolated_documents_begin_anew(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family)
    monkeypatch.setattr(carried, "STATE_TOKENS", 150)  # batches of two to some rows
    by_place = expected(model, list(zip([0, *ENDS[:-1]], ENDS, strict=True)))
    places = dataclasses.replace(ISOLATED, tokens=np.arange(N))
    order = torch.cat([targets[counted] for _, targets, counted in split_windows(places, 3, W)]).numpy()
    assert len(order) == N - len(ENDS)
    assert carried_losses(model, ISOLATED) == pytest.approx(by_place[order], abs=1e-5)
    found = evaluate_carried(model, ISOLATED)
    assert found.loss == pytest.approx(float(np.nanmean(by_place)), abs=1e-6)
    plain = dataclasses.replace(evaluate(model, ISOLATED), context="carried")
    if family not in ("bigram", "mlp"):
        assert abs(plain.loss - found.loss) > 1e-3
    same = {"loss": found.loss, "bits_per_byte": found.bits_per_byte}
    assert dataclasses.replace(plain, **same) == found


def test_carried_losses_drop_the_rows_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = model_of("lstm"), list[tuple[int, ...]]()
    features = type(model).features

    def counting(self: LanguageModel, idx_BT: torch.Tensor, state: State = None) -> tuple[torch.Tensor, State]:
        read.append(tuple(idx_BT.shape))
        return features(self, idx_BT, state)

    monkeypatch.setattr(type(model), "features", counting)
    carried_losses(model, ISOLATED)
    # Documents of 84, 65, 43, 32, 31, 19, 15 and 2 targets; one has none.
    assert read == [(8, 16), (6, 16), (3, 16), (2, 16), (2, 16), (1, 4)]


def test_carried_losses_in_bfloat16() -> None:
    model = model_of("hybrid").float()
    exact, found = (carried_losses(model, JOINED, precision=precision) for precision in ("float32", "bf16"))
    assert found.dtype == np.float32
    assert 1e-5 < abs(found.mean() - exact.mean()) < 0.1


def test_rows_of_a_text() -> None:
    def rows(tokens: int, context_length: int) -> list[int]:
        return rows_of(dataclasses.replace(JOINED, n_tokens=tokens), context_length).targets_N.tolist()

    assert rows(2, 64) == [1]
    assert rows(1 + 128 * 16 - 1, 16) == [2047], "a second row would have too few windows"
    assert rows(1 + 128 * 16, 16) == [1024, 1024]
    assert rows(172_505, 64) == 8 * [21_563]
    assert rows(172_504, 64) == [*(7 * [21_563]), 21_562]
    assert rows_of(ISOLATED, W).targets_N.tolist() == [2, 19, 65, 31, 32, 84, 15, 43]


def test_require_context_names_the_rule() -> None:
    require_context("reset", 4)
    require_context("carried", None)
    with pytest.raises(ConfigError, match=r"^context='kept' must be one of: reset, carried$"):
        require_context("kept", None)
    with pytest.raises(
        ConfigError, match=r"^stride=4 cannot be given: windows whose context is carried do not overlap$"
    ):
        require_context("carried", 4)


def test_require_carried_names_models_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    require_carried("llama", model_of("llama"), JOINED, cpu)
    with pytest.raises(
        ConfigError, match=r"^context='carried' cannot be given: gpt2.tiny sees at most context_length=16"
    ):
        require_carried("gpt2.tiny", model_of("gpt2"), JOINED, cpu)
    stateless = model_of("lstm")
    monkeypatch.setattr(type(stateless), "init_layers", LanguageModel.init_layers)
    with pytest.raises(ConfigError, match=r"cannot be given: lstm has no state"):
        require_carried("lstm", stateless, JOINED, cpu)


def test_require_carried_names_a_state_that_needs_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cpu = model_of("llama").to("meta"), torch.device("cpu")
    needed = model.state_bytes(N - 1)
    monkeypatch.setattr(bounds, "machine_memory", lambda device: needed)
    require_carried("llama", model, JOINED, cpu)
    monkeypatch.setattr(bounds, "machine_memory", lambda device: needed - 1)
    with pytest.raises(
        InputError, match=r"^context='carried': the state of llama for 1 x 299 tokens needs .* of memory"
    ):
        require_carried("llama", model, JOINED, cpu)
