"""Checks that every setting of a config matters, and that models with different settings do not affect each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_origin

import torch

from lmzoo import configs, losses, registry
from lmzoo.conformance.causality import LEAK as CAUSALITY
from lmzoo.conformance.causality import LENGTH_LEAK
from lmzoo.conformance.clones import clone
from lmzoo.conformance.decoding import LOOK as DECODING
from lmzoo.conformance.lengths import expected_logits
from lmzoo.conformance.measure import (
    FLOAT64_ROUNDING,
    difference,
    require_equal,
    require_exact,
    require_same_bits,
)
from lmzoo.conformance.parts import require_parts_in_use
from lmzoo.conformance.presets import preset_numbers, require_presets
from lmzoo.conformance.reach import directional_error
from lmzoo.conformance.report import Fault
from lmzoo.conformance.saturation import require_unbounded
from lmzoo.conformance.tiny import Subject, perturb, set_dropout
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig

TOKENS = 16  # per row, or the context length if it is less and the model does not extrapolate
LONG = 96  # per row, for settings that have no effect on `TOKENS`, as rules for longer texts
CACHES = "tables that are cached for all models, attributes of the class, module-level variables"


def settings(subject: Subject) -> str:
    """Checks that each field of the config has an effect, except those in its `without_effect`, which must have none.

    Effects are looked for in the parameters, initial weights, logits (in eval and train mode), auxiliary losses, state
    and traits. An effect in one form of the model is enough: the plain one, a variant or the large one. A whole number
    must also have an effect far above the sizes of these forms. The config must accept each preset, and no number of
    parts may leave weights without use.
    """
    require_presets(subject)
    ignored = getattr(type(subject.config), "without_effect", frozenset())
    unknown = sorted(ignored - set(configs.to_dict(subject.config)))
    if unknown:
        raise Fault(f"without_effect names {unknown[0]!r}, which is no setting of {type(subject.config).__name__}")
    tried: set[str] = set()
    effective: dict[str, Subject] = {}  # the form in which each setting has an effect
    forms = [subject, *subject.varied(), *_choices(subject), *subject.large()]
    _find_effects(forms, TOKENS, tried, effective)
    if tried - {*effective} - ignored:
        _find_effects(forms, LONG, tried, effective)
    useless = sorted(tried - {*effective} - ignored)
    if useless:
        raise Fault(
            f"{useless[0]} changes nothing: parameters, initial weights, logits in eval and train mode, auxiliary "
            "losses, state and traits stay the same; use it, remove it, or list it in the config's without_effect"
        )
    wrong = sorted({*effective} & ignored)
    if wrong:
        raise Fault(f"without_effect names {wrong[0]}, which has an effect")
    if subject.model().traits.trainable:
        require_parts_in_use(subject)
    # Not for a model that is fitted: what it can know is limited by its text.
    for name, form in effective.items() if subject.model().traits.trainable else ():
        try:
            require_unbounded(form, name)
        except Fault:
            raise
        except Exception:  # the model cannot run with such a value
            continue
    return f"{len(effective)} settings, each with an effect"


def _find_effects(forms: Sequence[Subject], tokens: int, tried: set[str], effective: dict[str, Subject]) -> None:
    """Adds the settings that these forms can try to `tried`, and those with an effect, and its form, to `effective`."""
    for form in forms:
        waiting = [(name, config) for name, config in form.neighbors() if name not in effective]
        effects = _Effects(form.cls, form.config, tokens) if waiting else None
        for name, config in waiting:
            if name in effective or effects is None:
                continue
            try:
                changed = effects.differ(_Effects(form.cls, config, tokens))
            except Exception:  # the model cannot run with this value, though the config accepts it: try another one
                continue
            tried.add(name)
            if changed:
                effective[name] = form


def _choices(subject: Subject) -> Iterator[Subject]:
    """Yields a form for each other value of a `Literal` field: other fields may matter only there."""
    hints = configs.types_of(type(subject.config))
    for name, config in subject.neighbors():
        if get_origin(hints[name]) is Literal:
            yield Subject(subject.cls, {**subject.settings, name: getattr(config, name)}, subject.name)


class _Effects:
    """Everything that a setting can have an effect on, computed when it is needed."""

    def __init__(self, cls: type[LanguageModel], config: ModelConfig, tokens: int = TOKENS) -> None:
        self.config, self.tokens = config, tokens
        self.model = registry.build_model(cls, config, generator=torch.Generator().manual_seed(0))
        self._values: dict[str, Any] = {}

    def differ(self, other: _Effects) -> bool:
        """True as soon as one of the effects differs."""
        for effect in ("facts", "weights", "logits", "trained"):
            mine, others = self.value(effect), other.value(effect)
            if isinstance(mine, dict):
                if any(difference(others[name], value) > FLOAT64_ROUNDING for name, value in mine.items()):
                    return True
            elif mine != others:
                return True
        return False

    def value(self, effect: str) -> Any:
        """Returns facts that can be compared by `==`, or tensors by name."""
        if effect not in self._values:
            self._values[effect] = getattr(self, f"_{effect}")()
        return self._values[effect]

    def _facts(self) -> object:
        shapes = [(name, tuple(p.shape)) for name, p in self.model.named_parameters()]
        roles = [(group["role"], len(group["params"])) for group in self.model.parameter_groups(0.1)]
        return shapes, roles, self.model.traits, [self.model.state_bytes(T) for T in (1, TOKENS)]

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def _logits(self) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {"logits": self._perturbed().eval()(self._tokens(0)).logits}

    def _trained(self) -> dict[str, torch.Tensor]:
        # A newly built model: eval mode may have switched dropout off for good, which `train_mode` finds.
        model = self._perturbed()
        idx, targets = self._tokens(0), self._tokens(1)
        with torch.random.fork_rng(devices=[]), losses.collect_auxiliary(True) as named:
            torch.manual_seed(0)
            x_BTD, _ = model.train().features(idx)
            named |= model.extra_losses(x_BTD, idx, targets)
        return {"features": x_BTD.detach(), **{f"loss {name}": value.detach() for name, value in named.items()}}

    def _perturbed(self) -> LanguageModel:
        """Returns a perturbed clone in float64, in train mode."""
        model = clone(self.model).double()
        perturb(model)
        return model

    def _tokens(self, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        T = self.tokens if self.model.traits.extrapolates else min(self.tokens, self.config.context_length)
        return torch.randint(self.config.vocab_size, (2, T), generator=generator)


@torch.no_grad()
def other_models(subject: Subject) -> str:
    """Checks that models of other settings decode what their `forward` computes, and do not change this model's logits.

    Whole numbers of presets, such as a number of rounds, are among the settings; with these the gradient is compared
    with a finite difference, too.
    Typical faults: a table cached by an incomplete key, attributes of the class, an option that decoding treats
    differently from `forward`, a gradient that is cut for large values of a setting.
    """
    model = subject.model().double()
    T = min(subject.context, 8)
    longer = subject.tokens(2, subject.context)
    idx = longer[:, :T]
    logits_BTV = model(idx).logits
    others = 0
    preset_configs = list(preset_numbers(subject))
    for config in (*_others(subject), *preset_configs):
        new_T = min(T + 1 + others, subject.context)  # a length that no other model has used
        try:
            other = registry.build_model(subject.cls, config, generator=torch.Generator().manual_seed(1)).double()
            perturb(other)
            set_dropout(other, 0.0)
            longer_BTV = expected_logits(subject, other.eval(), longer[:, :new_T])
            shorter_BTV = expected_logits(subject, other, idx)
            chunks = [idx[:, : T - 1], *longer[:, T - 1 : new_T].split(1, dim=1)[:2]]
            state, decoded = other.init_state(2, new_T), list[torch.Tensor]()
            for chunk in chunks:
                logits_BV, state = other.decode(chunk, state)
                decoded.append(logits_BV)
        except Exception:  # it cannot run with these settings: other checks report that
            continue
        others += 1
        changes = _changes(subject.config, config)
        off = difference(shorter_BTV, longer_BTV[:, :T])
        if off > 1e-6:
            last = (longer[:, new_T - 1 : new_T] + 1) % config.vocab_size
            changed_BTV = other(torch.cat([longer[:, : new_T - 1], last], dim=1)).logits
            leak = difference(changed_BTV[:, :-1], longer_BTV[:, :-1])
            if leak > FLOAT64_ROUNDING:
                raise Fault(
                    f"with {changes}, changing the last token changes earlier logits by {leak:.2g}; look at {CAUSALITY}"
                )
        # For the shorter input, a table that is cached by its length alone would be the one of the first model.
        what = f"a model with {changes} at a length that another model has used"
        require_equal(shorter_BTV, longer_BTV[:, :T], what, f"{LENGTH_LEAK}; or at {CACHES}", 1e-6)
        for t, logits_BV in enumerate(decoded, T - 2):
            what = f"with {changes}, decoding position {t}"
            require_exact(logits_BV, longer_BTV[:, t], what, DECODING, other, longer[:, : t + 1], state)
        if config in preset_configs and other.traits.trainable:
            _require_gradient(other, idx, subject.tokens(2, T, seed=1), f"with {changes}")
        require_same_bits(model(idx).logits, logits_BTV, f"a model, after one with {changes} was used,", CACHES)
    return f"the same logits after {others} models of other settings"


def _require_gradient(model: LanguageModel, idx: torch.Tensor, targets: torch.Tensor, what: str) -> None:
    """Raises `Fault` if the gradient of a model with other settings is not the slope of its loss."""
    try:
        with torch.enable_grad():
            directional_error(model, idx, targets)
    except Fault as fault:
        raise Fault(f"{what}, {fault}") from fault


def _others(subject: Subject) -> Iterator[ModelConfig]:
    """Yields one other config for each field, and one with another vocabulary and context length."""
    seen: set[str] = set()
    for name, config in subject.neighbors():
        if name not in seen:
            seen.add(name)
            yield config
    for change in ({"context_length": subject.context + 5}, {"vocab_size": subject.config.vocab_size + 4}):
        try:
            yield dataclasses.replace(subject.config, **change)
        except ConfigError:
            continue


def _changes(config: ModelConfig, other: ModelConfig) -> str:
    """Returns the settings of `other` that differ, for messages."""
    now, then = configs.to_dict(config), configs.to_dict(other)
    return ", ".join(f"{name}={value!r}" for name, value in then.items() if now[name] != value)
