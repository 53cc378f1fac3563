"""Checks the two modes: train mode differs from eval mode only in what is declared, and keeps nothing of a batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from lmzoo import configs
from lmzoo.conformance import masks
from lmzoo.conformance.clones import clone
from lmzoo.conformance.dropout import require_scaled
from lmzoo.conformance.measure import require_equal, require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel, ModelConfig

PASSES = 4  # in train mode: so few move the bias of a router by little, and a running mean by much
SHORT = 9  # tokens: in two rows fewer than features, so that more random numbers than tokens are drawn for features
SEEDS = 32  # tried until two of them give different logits, because what is random may be rare


def train_mode(subject: Subject) -> str:
    """Checks that dropout is off in eval mode, and that train and eval mode differ in nothing else.

    Also checks that dropout divides what it keeps by 1 - p, and that each pass in train mode draws new random numbers,
    changes no parameter, and leaves nothing of its batch to later passes, except in buffers that only decide what is
    chosen (the bias of a router).
    """
    idx = subject.tokens(2, subject.context)
    plain_BTV = subject.model()(idx).logits
    dropping = subject.model(dropout=0.5) if subject.is_variant else subject.dropping(0.5)
    require_same_bits(
        dropping(idx).logits,
        plain_BTV,
        "eval mode with a dropout of 0.5, against eval mode without dropout,",
        "dropout that does not depend on self.training: F.dropout(x, p, self.training), dropout_p of attention",
    )
    used = subject.model().train()
    first, again = _trained_logits(used, idx, 0), _trained_logits(subject.model().train(), idx, 0)
    require_same_bits(
        again,
        first,
        "train mode, again with the same seed,",
        "random numbers that torch's generator does not draw",
    )
    if used.traits.random_in_training:
        others = (_trained_logits(clone(used), idx, seed) for seed in range(1, SEEDS))
        if all(torch.equal(first, other) for other in others):
            raise Fault(
                f"traits says random_in_training=True, but {SEEDS} seeds give the same logits in train mode; look at "
                "random numbers that are drawn once and kept on the module"
            )
    else:
        kept = changed_values(used, subject.model())
        where = f"self.training, running statistics{kept}"
        require_equal(first, plain_BTV, "train mode without dropout, against eval mode,", where)
        if not subject.is_variant:
            require_scaled(dropping, idx[:, :SHORT])
    if not torch.equal(used.eval()(idx).logits, plain_BTV):
        _require_no_statistics(subject, idx)
    if not subject.is_variant:
        for model in (subject.model(), masks.large_form(subject, "matrices")):
            _require_same_parameters(model, idx[:, :SHORT])
    # A new model is in train mode: going to eval mode and back must not change anything.
    rates: dict[str, Any] = {
        name: 0.5 for name, value in configs.to_dict(subject.config).items() if "dropout" in name and value == 0
    }
    model = constructed(subject.cls, dataclasses.replace(subject.config, **rates), 0)
    used = clone(model)
    before_BTV = _trained_logits(used, idx, 0)
    repeated = bool(rates) and torch.equal(_trained_logits(used, idx, 1), before_BTV)
    if repeated and not torch.equal(_trained_logits(clone(model), idx, 1), before_BTV):
        raise Fault(
            "in train mode a second pass with another seed repeats the dropout of the first; look at a mask that is "
            "kept on the module"
        )
    require_same_bits(
        _trained_logits(model.eval().train(), idx, 0),
        before_BTV,
        "train mode, after eval() and train(),",
        "what eval() and train() change: dropout that stays switched off",
    )
    return "train and eval mode differ only in what is declared; eval mode leaves no trace"


@torch.no_grad()
def _require_same_parameters(model: LanguageModel, idx: Tensor) -> None:
    """Raises `Fault` if a pass in train mode changes a parameter, which only an optimizer may.

    Large weights are tried too: a limit of scores or norms has no effect with usual weights.
    """
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    _trained_logits(model.train(), idx, 0)
    for name, parameter in model.named_parameters():
        if not torch.equal(parameter.nan_to_num(), before[name].nan_to_num()):
            raise Fault(
                f"a pass in train mode changes {name}, which only the optimizer may; look at limits of weights or "
                "scores in forward(): apply them after a step of the optimizer"
            )


def _require_no_statistics(subject: Subject, idx: Tensor) -> None:
    """Raises `Fault` if the tokens of passes in train mode change later logits at most positions.

    Two models that have read different batches are compared. A buffer that only decides what is chosen (the bias of a
    router) makes a difference at a few positions, and one that counts passes or is computed from weights makes none.
    """
    after = []
    for offset in (0, 100):
        model = subject.model().train()
        for seed in range(PASSES):
            _trained_logits(model, subject.tokens(*idx.shape, seed=offset + seed), seed)
        after.append(model.eval()(idx).logits)
    off_BT = (after[0] - after[1]).abs().amax(-1) / after[0].abs().max().clamp(min=1)
    share = (off_BT > 1e-6).float().mean().item()
    if share > 0.5:
        raise Fault(
            f"{PASSES} passes in train mode on other batches change the logits at {share:.0%} of the positions, by up "
            f"to {off_BT.max().item():.2g}; look at what is kept of a batch, such as statistics"
            f"{changed_values(model, subject.model())}"
        )


def _trained_logits(model: torch.nn.Module, idx: Tensor, seed: int) -> Tensor:
    """Returns the logits of a pass that begins with torch's global seed `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(idx).logits


def changed_values(model: LanguageModel, before: LanguageModel) -> str:
    """Returns the end of a message, which names the saved tensors in which two models differ, or ''."""
    values = before.state_dict()
    names = [name for name, value in model.state_dict().items() if not torch.equal(value, values[name])]
    return f"; a pass has changed {', '.join(names[:3])}" if names else ""


def constructed(cls: type[LanguageModel], config: ModelConfig, seed: int) -> LanguageModel:
    """Returns a model of the class with the weights of the seed, to which it also sets torch's global generator."""
    torch.manual_seed(seed)
    model = cls(config)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model
