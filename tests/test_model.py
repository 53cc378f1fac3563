"""The contract, on small models made for these tests: the methods that every architecture inherits."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo import humanize
from lmzoo.errors import ConfigError, InputError, LmzooError
from lmzoo.losses import IGNORE_INDEX, auxiliary_loss, cross_entropy, reported
from lmzoo.model import LanguageModel, ModelConfig, Traits


class Cumulative(LanguageModel):
    """A minimal backbone without a state: at each position the mean of the embeddings so far."""

    def __init__(self, config: ModelConfig, *, extrapolates: bool = False) -> None:
        super().__init__(config)
        self.extrapolates = extrapolates
        self.table = nn.Embedding(config.vocab_size, 6)
        self.head = nn.Linear(6, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=self.extrapolates)

    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        x_BTD = self.table(idx_BT)
        auxiliary_loss("size", x_BTD.square().mean())
        return x_BTD.cumsum(dim=1) / torch.arange(1, idx_BT.shape[1] + 1)[:, None], state


def cumulative(*, extrapolates: bool = False, context_length: int = 5) -> Cumulative:
    torch.manual_seed(0)
    return Cumulative(ModelConfig(vocab_size=7, context_length=context_length), extrapolates=extrapolates)


def ids(B: int, T: int, V: int = 7, seed: int = 1) -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("extrapolates", [False, True])
def test_decode_without_a_state_is_correct_past_the_context(extrapolates: bool) -> None:
    model = cumulative(extrapolates=extrapolates)
    idx, state = ids(3, 12), model.init_state(3, 12)
    for t in range(12):
        logits, state = model.decode(idx[:, t : t + 1], state)
        start = 0 if extrapolates else max(0, t - 4)  # the window of the last 5
        expected = model(idx[:, start : t + 1]).logits[:, -1]
        torch.testing.assert_close(logits, expected)
    assert state["position"] == 12


def test_decode_with_learned_positions_sees_a_sliding_window() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=7, context_length=6, d_model=16, n_layers=2, n_heads=2).eval()
    idx = ids(2, 20)
    for pieces in ([1] * 20, [6, 1, 13], [4, 5, 11], [20]):
        state, seen = model.init_state(2, 8), 0
        for piece in pieces:
            logits, state = model.decode(idx[:, seen : seen + piece], state)
            seen += piece
            expected = model(idx[:, max(0, seen - 6) : seen]).logits[:, -1]
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_decode_leaves_the_given_state_unchanged() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=7, context_length=16, d_model=16, n_layers=1, n_heads=2).eval()
    idx = ids(2, 9)
    _, state = model.decode(idx[:, :5], model.init_state(2, 16))
    first, after = model.decode(idx[:, 5:7], state)
    model.decode(idx[:, 7:], state)
    again, _ = model.decode(idx[:, 5:7], state)
    assert torch.equal(first, again)
    assert torch.equal(model.decode(idx[:, 7:], after)[0], model.decode(idx[:, 7:], after)[0])


def test_forward_without_logits_gives_the_same_loss() -> None:
    model = cumulative()
    idx = ids(3, 5)
    targets = ids(3, 5).masked_fill(torch.arange(5) == 2, IGNORE_INDEX)
    logits, loss = model(idx, targets)
    without = model(idx, targets, return_logits=False)
    assert without.logits is None
    torch.testing.assert_close(without.loss, loss)
    plain = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(loss, plain, msg="the auxiliary loss must not be mixed in")


def test_forward_adds_auxiliary_losses_to_the_gradient_only() -> None:
    model, idx = cumulative(), ids(3, 5)
    loss = model(idx, torch.full_like(idx, IGNORE_INDEX)).loss
    loss.backward()
    assert loss.item() == 0
    expected = 2 * model.table.weight * torch.bincount(idx.flatten(), minlength=7)[:, None] / idx.numel() / 6
    torch.testing.assert_close(model.table.weight.grad, expected)


class TwoAhead(Cumulative):
    """Predicts the token after the next one too, by a second head, in training alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.ahead = nn.Linear(6, config.vocab_size)

    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        assert self.training, "the hook must not cost anything in evaluation"
        assert idx.shape == targets.shape == x_BTD.shape[:2]
        return {"two_ahead": cross_entropy(self.ahead(x_BTD[:, :-1]), targets[:, 1:])}


@pytest.mark.parametrize("return_logits", [True, False])
def test_extra_losses_take_part_in_training_and_are_reported_by_name(return_logits: bool) -> None:
    torch.manual_seed(0)
    model = TwoAhead(ModelConfig(vocab_size=7, context_length=5))
    idx, targets = ids(3, 5), ids(3, 5, seed=2)
    with reported() as named:
        loss = model(idx, targets, return_logits=return_logits).loss
    logits = model(idx, targets).logits
    torch.testing.assert_close(loss, cross_entropy(logits, targets), msg="they must not be mixed in")
    expected = cross_entropy(model.ahead(model.features(idx)[0][:, :-1]), targets[:, 1:])
    torch.testing.assert_close(named["two_ahead"], expected.detach())
    (gradient,) = torch.autograd.grad(loss, model.ahead.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, model.ahead.weight)[0])


def test_extra_losses_are_left_out_in_eval_mode_and_without_targets() -> None:
    model, idx = TwoAhead(ModelConfig(vocab_size=7, context_length=5)), ids(3, 5)
    with reported() as named:
        model.eval()(idx, idx)
        model.train()(idx)
    assert named == {}


@pytest.mark.parametrize(
    ("idx", "targets", "message"),
    [
        (torch.tensor([[0, 7]]), None, r"idx holds the id 7: ids must be in \[0, vocab_size=7\)"),
        (torch.tensor([[0, -1]]), None, r"idx holds the id -1: ids must be in \[0, vocab_size=7\)"),
        (torch.tensor([[0, 1]]), torch.tensor([[0, 7]]), "targets holds the id 7"),
        (torch.tensor([[0, 1]]), torch.tensor([[0, -1]]), "targets holds the id -1"),
        (
            torch.tensor([[0, 1]]),
            torch.tensor([[0]]),
            r"targets has shape \(1, 1\): it must be the shape of idx, \(1, 2\)",
        ),
        (torch.tensor([0, 1]), None, r"idx is torch.int64 of shape \(2,\): it must be int64 of shape \(B, T\)"),
        (torch.tensor([[0.0, 1.0]]), None, "idx is torch.float32"),
        (torch.zeros(1, 6, dtype=torch.long), None, "idx has T=6 tokens, more than context_length=5: Cumulative"),
    ],
)
def test_forward_names_bad_input(idx: Tensor, targets: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cumulative()(idx, targets)


def test_forward_names_what_an_author_returned_instead_of_features_and_logits() -> None:
    """Two rows in the place of (x_BTD, state) could be taken apart, and give a loss without an error."""
    model, idx = cumulative(), ids(2, 5)
    found, _ = model.features(idx)
    for wrong, message in (
        (found, r"features\(\) of Cumulative returned a Tensor: it must return \(x_BTD, state\)"),
        ((found, None, None), "returned a tuple"),
        ((found.mean(1), None), r"returned x of shape \(2, 6\): it must be \(B, T, D\) with B = 2 and T = 5"),
    ):
        model.features = lambda idx, state=None, wrong=wrong: wrong  # type: ignore[method-assign]
        for targets in (None, idx):
            with pytest.raises(TypeError, match=message):
                model(idx, targets)
    narrow = cumulative()
    narrow.head = nn.Linear(6, 3)
    for targets in (None, idx):
        with pytest.raises(
            TypeError, match=r"head of .* logits of shape \(2, 5, 3\): the last axis must be vocab_size=7"
        ):
            narrow(idx, targets)


def test_forward_and_decode_name_bad_calls() -> None:
    model = cumulative()
    with pytest.raises(InputError, match="return_logits=False needs targets"):
        model(ids(1, 2), return_logits=False)
    with pytest.raises(InputError, match="idx has T=0 tokens: decode needs at least one"):
        model.decode(ids(1, 0), model.init_state(1))
    with pytest.raises(InputError, match="idx holds the id 9"):
        model.decode(torch.tensor([[9]]), model.init_state(1))
    assert model(ids(1, 5)).logits.shape == (1, 5, 7), "a whole context is no error"


def test_forward_takes_no_rows_and_refuses_no_tokens() -> None:
    model = cumulative()
    assert model(ids(0, 3)).logits.shape == (0, 3, 7)
    assert model.decode(ids(0, 3), model.init_state(0))[0].shape == (0, 7)
    for family in lmzoo.list_models("*.tiny"):
        with pytest.raises(InputError, match="idx has T=0 tokens: forward needs at least one"):
            lmzoo.create_model(family, vocab_size=7, device="meta")(ids(2, 0).to("meta"))


def test_parameter_groups_hold_each_parameter_once_by_role() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=11, context_length=8, d_model=16, n_layers=1, n_heads=2)
    groups = {group["role"]: group for group in model.parameter_groups(0.1)}
    assert {role: group["weight_decay"] for role, group in groups.items()} == {
        "embedding": 0.1,
        "matrix": 0.1,
        "vector": 0,
    }
    assert [p.shape for p in groups["embedding"]["params"]] == [(11, 16), (8, 16)]
    assert all(p.ndim == 2 for p in groups["matrix"]["params"])
    assert all(p.ndim == 1 for p in groups["vector"]["params"])
    counted = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())


def test_num_params_flops_and_state_bytes_count_a_small_model() -> None:
    model = cumulative()
    assert model.num_params() == 7 * 6 + 6 * 7 + 7
    assert model.flops_per_token(5) == 2 * 6 * 7
    assert model.state_bytes(4) == 4 * 8, "the tokens so far, int64"
    assert cumulative(extrapolates=True).state_bytes(400) == 400 * 8
    gpt2 = lmzoo.create_model("gpt2", vocab_size=11, context_length=8, d_model=16, n_layers=3, n_heads=2)
    assert gpt2.num_params() - gpt2.num_params(embedding=False) == (11 + 8) * 16
    assert gpt2.flops_per_token(8) == 3 * (2 * 12 * 16 * 16 + 4 * 8 * 16) + 2 * 16 * 11
    assert gpt2.state_bytes(8) == 8 * (3 * 2 * 16 * 4 + 8)


def test_init_weights_gives_uniform_predictions() -> None:
    for name in ("bigram", "gpt2", "llama"):
        loss = lmzoo.create_model(name, vocab_size=50).eval()(ids(4, 32, 50), ids(4, 32, 50, seed=2)).loss
        assert abs(loss.item() / math.log(50) - 1) < 0.05, name


@pytest.mark.parametrize("tied", [True, False])
def test_init_weights_after_the_meta_device_equals_direct_construction(tied: bool) -> None:
    settings = {
        "vocab_size": 11,
        "context_length": 8,
        "d_model": 16,
        "n_layers": 1,
        "n_heads": 2,
        "tie_embeddings": tied,
    }
    eager = lmzoo.create_model("gpt2", **settings, generator=torch.Generator().manual_seed(5))
    with torch.device("meta"):
        later = lmzoo.create_model("gpt2", **settings)
    later.to_empty(device="cpu")
    later.init_weights(torch.Generator().manual_seed(5))
    for (name, p), (_, q) in zip(eager.named_parameters(), later.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    assert (later.head.weight is later.tokens.weight) == tied


def test_init_state_allocates_max_len_and_at_most_the_window() -> None:
    gpt2 = lmzoo.create_model("gpt2", vocab_size=11, context_length=8, d_model=16, n_layers=3, n_heads=2)
    keys_and_values = 3 * 2 * 16 * 4
    assert gpt2.state_bytes(4) == 4 * (keys_and_values + 8)
    assert gpt2.state_bytes(100) == 8 * keys_and_values + 8 * 8, "entries in reach, whatever the room"


def test_decode_needs_no_gradient_and_keeps_its_cache_to_the_last_position() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=7, context_length=6, d_model=16, n_layers=1, n_heads=2).eval()
    logits, state = model.decode(ids(2, 6), model.init_state(2))
    assert not logits.requires_grad
    assert state["layers"] is not None
    assert model.decode(ids(2, 1), state)[1]["layers"] is None, "one further, every position has moved"


def test_model_defaults_are_as_documented() -> None:
    assert ModelConfig(vocab_size=1).context_length == 256
    assert Traits() == Traits(extrapolates=False, receptive_field=None, state_growth="linear", uniform_at_start=True)
    model, idx = cumulative(), ids(2, 3)
    plain = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "repetition_penalty": 1.0}

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    drawn = model.generate(idx, 40, generator=seeded())
    assert torch.equal(drawn, model.generate(idx, 40, **plain, generator=seeded()))
    assert not torch.equal(drawn, model.generate(idx, 40, repetition_penalty=5.0, generator=seeded()))
    streamed = torch.stack(list(model.stream(idx, 40, generator=seeded())), dim=1)
    assert torch.equal(streamed, drawn[:, 3:])


def test_forward_with_a_vocabulary_of_one_may_ignore_targets() -> None:
    idx = torch.zeros(1, 3, dtype=torch.long)
    assert lmzoo.create_model("bigram", vocab_size=1)(idx, torch.full_like(idx, IGNORE_INDEX)).loss.item() == 0


def test_parameter_groups_separate_embeddings_and_heads_from_matrices() -> None:
    """Plain torch modules get their role from their type or from being the head; a tied head stays an embedding."""
    sizes = {"vocab_size": 11, "context_length": 8, "d_model": 16, "n_layers": 1, "n_heads": 2}
    untied = lmzoo.create_model("gpt2", **sizes, tie_embeddings=False)
    for model, head in ((untied, untied.head.weight), (plain := cumulative(), plain.head.weight)):
        groups = {group["role"]: group for group in model.parameter_groups(0.1)}
        assert [id(p) for p in groups["head"]["params"]] == [id(head)]
        assert groups["head"]["weight_decay"] == 0.1
        assert "matrix" not in groups or all(11 not in p.shape for p in groups["matrix"]["params"])
    assert plain.num_params() - plain.num_params(embedding=False) == plain.table.weight.numel()
    tied = lmzoo.create_model("gpt2", **sizes, tie_embeddings=True)
    assert {group["role"] for group in tied.parameter_groups(0.1)} == {"embedding", "matrix", "vector"}


def test_parameter_groups_take_filters_of_single_features_for_vectors() -> None:
    model = cumulative()
    convolutions = (
        nn.Conv1d(8, 8, 3, groups=8),
        nn.Conv1d(8, 16, 3, groups=8),
        nn.Conv1d(8, 8, 3, groups=2),
        nn.Conv1d(1, 8, 3),
    )
    for conv, role in zip(convolutions, ("vector", "vector", "matrix", "matrix"), strict=True):
        model.conv = conv
        groups = {group["role"]: group["params"] for group in model.parameter_groups(0.1)}
        assert any(p is conv.weight for p in groups[role]), conv
        assert any(p is conv.bias for p in groups["vector"])


def test_model_config_refuses_impossible_sizes() -> None:
    for settings in ({"vocab_size": 0}, {"vocab_size": 7, "context_length": 0}):
        with pytest.raises(ConfigError, match="=0 must be"):
            ModelConfig(**settings)
    with pytest.raises(ConfigError, match=r"context_length=1\.5 must be a positive integer"):
        ModelConfig(vocab_size=7, context_length=1.5)  # type: ignore[arg-type]


def test_parameter_groups_refuses_what_no_optimizer_takes() -> None:
    for wrong in (None, "0.1", -0.1, math.nan, True):
        with pytest.raises(InputError, match=f"weight_decay={wrong!r} must be a number, 0 or above"):
            cumulative().parameter_groups(wrong)  # type: ignore[arg-type]


def test_num_params_counts_tied_weights_once_and_save_keeps_them(tmp_path: Path) -> None:
    sizes = {"vocab_size": 11, "context_length": 8, "d_model": 16, "n_layers": 1, "n_heads": 2}
    model = lmzoo.create_model("gpt2", **sizes, tie_embeddings=True).eval()
    assert model.num_params() == sum(p.numel() for p in model.parameters())
    assert sum(len(group["params"]) for group in model.parameter_groups(0.1)) == len(list(model.parameters()))
    model.save(tmp_path / "saved")
    idx = ids(2, 5)
    assert torch.equal(lmzoo.load_model(tmp_path / "saved").eval()(idx).logits, model(idx).logits)


def test_num_params_counts_a_parameter_of_two_modules_once() -> None:
    model = cumulative()
    model.head.weight = model.table.weight
    assert model.num_params() == 7 * 6 + 7
    assert sum(len(group["params"]) for group in model.parameter_groups(0.1)) == 2


def test_decode_keeps_no_graph() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=7, context_length=16, d_model=16, n_layers=1, n_heads=2)
    logits, state = model.decode(ids(1, 3), model.init_state(1))
    assert not logits.requires_grad
    assert not any(tensor.requires_grad for tensor in lmzoo.state.tensors(state))


def nested(idx: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor([*idx])


def bad_calls() -> dict[str, Callable[[lmzoo.LanguageModel], object]]:
    """Calls with an argument of a wrong kind, by the message that each must give."""
    idx = ids(2, 3)
    return {
        "idx is a list": lambda m: m([[1, 2]]),
        "idx is a str": lambda m: m.generate("hello", 5),
        "idx is a torch.sparse_coo tensor": lambda m: m(idx.to_sparse()),
        "idx is a nested tensor": lambda m: m(nested(idx)),
        "targets is a list": lambda m: m(idx, [[1, 2, 3]] * 2),
        "idx is on meta, the model on cpu": lambda m: m(idx.to("meta")),
        "write temperature=0.8": lambda m: m.generate(idx, 5, 0.8),
        "stream takes its settings by name": lambda m: m.stream(idx, 5, 0.8),
        "do_sample=True is not an option": lambda m: m.generate(idx, 5, do_sample=True),
        "max_new_tokens='5' must be": lambda m: m.generate(idx, "5"),
        "max_new_tokens=-1 must be": lambda m: m.generate(idx, -1),
        "max_new_tokens=True must be": lambda m: m.generate(idx, True),
        "and below 2^40": lambda m: m.generate(idx, 1 << 60),
        "a result of 500000000000 tokens needs": lambda m: m.generate(idx, 5 * 10**11),
        "stop_tokens=3 must be a sequence": lambda m: m.generate(idx, 5, stop_tokens=3),
        "stop_tokens holds the id 1.5": lambda m: m.generate(idx, 5, stop_tokens=[1.5]),
        "generator=3 must be": lambda m: m.generate(idx, 5, generator=3),
        "logit_bias=[1] must be a mapping": lambda m: m.generate(idx, 5, logit_bias=[1]),
        "batch_size=-1 must be": lambda m: m.init_state(-1),
        "batch_size=1.5 must be": lambda m: m.init_state(1.5),
        "max_len='9' must be": lambda m: m.init_state(1, "9"),
        "a state of 1000000000000 rows": lambda m: m.init_state(10**12),
        "T=0 must be a positive integer": lambda m: m.flops_per_token(0),
        "T=None must be": lambda m: m.state_bytes(None),
        "generator='x' must be": lambda m: m.init_weights("x"),
        "state is a NoneType": lambda m: m.decode(idx, None),
        "state is a dict": lambda m: m.decode(idx, {}),
        "state has 3 rows, idx has 2": lambda m: m.decode(idx, m.init_state(3)),
        "state has the position -1": lambda m: m.decode(idx, {**m.init_state(2), "position": -1}),
        "state has neither tokens nor layers": lambda m: m.decode(
            idx, {**m.init_state(2), "tokens": None, "layers": None}
        ),
        "state is not one of this model": lambda m: m.decode(idx, {**m.init_state(2), "layers": {"x": 3}}),
        "decode_all needs at least one": lambda m: m.decode_all(ids(2, 0), m.init_state(2)),
    }


@pytest.mark.parametrize("message", bad_calls())
def test_methods_refuse_arguments_of_a_wrong_kind(message: str) -> None:
    model = lmzoo.create_model("llama", vocab_size=7, d_model=8, n_layers=1, n_heads=2, d_ff=8, context_length=8)
    with pytest.raises(LmzooError, match=re.escape(message)):
        bad_calls()[message](model)


@pytest.mark.parametrize(("family", "other"), [("llama", "gpt2"), ("mamba", "lstm"), ("lstm", "bigram")])
def test_decode_refuses_the_state_of_another_model(family: str, other: str) -> None:
    settings = {"vocab_size": 7, "context_length": 8}
    model, stranger = lmzoo.create_model(f"{family}.tiny", **settings), lmzoo.create_model(other, **settings)
    with pytest.raises(InputError, match=f"state belongs to the model {other} .*: this one is {family} "):
        model.decode(ids(2, 3), stranger.init_state(2))
    wider = lmzoo.create_model(f"{family}.tiny", **settings | {"context_length": 9})
    with pytest.raises(InputError, match="state belongs to the model"):
        model.decode(ids(2, 3), wider.init_state(2))
    with pytest.raises(InputError, match=r"state belongs to the model .*float64: this one is .*float32"):
        model.decode(ids(2, 3), copy.deepcopy(model).double().init_state(2))


def test_decode_keeps_an_error_of_the_model() -> None:
    model = cumulative()
    model.features = lambda *_: (_ for _ in ()).throw(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        model.decode(ids(2, 3), model.init_state(2))


class NeedsRows(Cumulative):
    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        assert len(idx_BT), "a batch of no rows must not reach the layers"
        return super().features(idx_BT, state)


def test_forward_and_decode_of_no_rows_do_not_call_the_layers() -> None:
    model = NeedsRows(ModelConfig(vocab_size=7, context_length=8))
    idx = torch.zeros(0, 5, dtype=torch.long)
    logits, loss = model(idx, idx)
    assert logits.shape == (0, 5, 7)
    loss.backward()
    assert loss.item() == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())
    assert model(idx, idx, return_logits=False).logits is None
    assert model(idx).loss is None
    logits, state = model.decode(idx, model.init_state(0, 9))
    assert logits.shape == (0, 7)
    assert model.decode_all(idx[:, :3], state)[0].shape == (0, 3, 7)
    assert model.generate(idx, 2).shape == (0, 7)


def test_model_is_a_line_in_a_notebook() -> None:
    model = lmzoo.create_model("gpt2", vocab_size=65, d_model=32, n_layers=1, n_heads=2)
    shown = model._repr_html_()
    assert (
        f"<b>gpt2</b>: {humanize.count(model.num_params())} parameters, receptive field unlimited, state linear"
        in shown
    )
    assert "vocab_size=65" in shown
    model.family = "<script>"
    assert "&lt;script&gt;" in model._repr_html_()
    assert "receptive field 1, state none" in lmzoo.create_model("bigram", vocab_size=65)._repr_html_()
