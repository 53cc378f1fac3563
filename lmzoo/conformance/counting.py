"""Checks of declared numbers (parameters, FLOPs, bytes of the state) at three model sizes and three lengths."""

from __future__ import annotations

import torch
from torch import nn

from lmzoo import registry
from lmzoo import state as states
from lmzoo.conformance.clones import clone
from lmzoo.conformance.lengths import comparable
from lmzoo.conformance.neighbors import resized
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.conformance.usage import require_declared_use
from lmzoo.flops import counting
from lmzoo.model import LanguageModel


def _sizes(subject: Subject) -> list[LanguageModel]:
    """Returns models of three sizes. Of a variant only one: the plain form shows how the numbers depend on sizes."""
    model = subject.model()
    return [model] if subject.is_variant else [model, *(subject.model(**change) for change in resized(subject.config))]


def parameters(subject: Subject) -> str:
    """Checks that `num_params` and `parameter_groups` count each parameter exactly once.

    Also checks the share of experts that a token uses, which `num_params(active=True)` counts, and that a copy has
    parameters of its own.
    """
    for model in _sizes(subject):
        measured = sum(storage.numel() for storage in {p.data_ptr(): p for p in model.parameters()}.values())
        if model.num_params() != measured:
            raise Fault(
                f"num_params() is {model.num_params():,}, but the parameters have {measured:,} values; look at "
                "parameters that are views of others"
            )
        grouped = [id(p) for group in model.parameter_groups(0.1) for p in group["params"]]
        if sorted(grouped) != sorted({id(p) for p in model.parameters()}):
            raise Fault("parameter_groups() does not hold each parameter exactly once; look at parameter_roles")
        for name, module in model.named_modules():
            _require_registered(name, module)
    _require_own_tensors(subject)
    require_declared_use(subject)
    return f"{subject.model().num_params():,} parameters, each in one group, at three sizes"


@torch.no_grad()
def _require_own_tensors(subject: Subject) -> None:
    """Raises `Fault` if a copy of the model reads a parameter of the original."""
    # A newly built model, because `subject.model()` returns a copy.
    model = registry.build_model(subject.cls, subject.config, generator=torch.Generator().manual_seed(0)).eval()
    copied, idx = clone(model), subject.tokens(1, min(subject.context, 9))
    before = copied(idx).logits.isnan().any()
    for parameter in model.parameters():
        parameter.fill_(torch.nan)
    # Not a comparison of logits: noise in eval mode, which `same_seed` reports, changes them too, but not to NaN.
    if copied(idx).logits.isnan().any() and not before:
        raise Fault(
            "a copy of the model reads parameters of the original; look at a lambda, a closure or a bound method that "
            "holds a parameter or a module: refer to it through self in forward()"
        )


def _require_registered(name: str, module: nn.Module) -> None:
    """Raises `Fault` for parameters or modules in a plain list or dict, where they are neither trained nor saved."""
    for attribute, value in vars(module).items():
        if attribute.startswith("_"):
            continue
        held = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
        if any(isinstance(item, (nn.Parameter, nn.Module)) for item in held):
            where = f"{name}.{attribute}" if name else attribute
            raise Fault(
                f"{where} holds modules or parameters in a plain {type(value).__name__}, where they are neither "
                "trained nor saved: use nn.ModuleList, nn.ModuleDict or nn.ParameterList"
            )


def flops(subject: Subject) -> str:
    """Checks that `flops_per_token` equals the FLOPs that torch counts in a forward pass."""
    counted = []
    for model in _sizes(subject):
        context = model.config.context_length
        for T in (3, context // 2, context):
            # One row, because a layer may compute something once for all rows (a filter, a bias).
            with counting() as counter:
                model(torch.zeros(1, T, dtype=torch.long))
            measured = counter.get_total_flops() / T
            declared = model.flops_per_token(T)
            if abs(declared - measured) > 1e-3 * max(measured, 1.0):
                raise Fault(
                    f"flops_per_token({T}) is {declared:,.0f}, torch counts {measured:,.0f} per token at "
                    f"{model.num_params():,} parameters; {_undeclared(model)}"
                )
            counted.append(measured)
    return f"{min(counted):,.0f} to {max(counted):,.0f} FLOPs a token at {len(counted)} sizes and lengths, as counted"


def _undeclared(model: LanguageModel) -> str:
    """Returns the end of a message, which names the layers whose declaration is missing or may be wrong."""
    others = {type(m).__name__: hasattr(m, "flops") for m in model.modules() if m is not model and _is_foreign(m)}
    missing = sorted(name for name, declares in others.items() if not declares)
    declared = sorted(name for name, declares in others.items() if declares)
    where = [f"{', '.join(missing)}: no flops(T) declared"] if missing else []
    where += [f"flops(T) of {', '.join(declared)}"] if declared else []
    where.append("calls(T) of a layer whose child does not run once per token")
    return f"look at {'; '.join(where)} (a faster form with more FLOPs is wrapped in lmzoo.ops.counting.counted_as)"


def _is_foreign(module: nn.Module) -> bool:
    """True for a module that neither torch nor lmzoo defines."""
    return type(module).__module__.partition(".")[0] not in ("torch", "lmzoo")


def state_bytes(subject: Subject) -> str:
    """Checks that the state after T tokens takes `state_bytes(T)` bytes."""
    seen = []
    for model in _sizes(subject):
        context = model.config.context_length
        for T in (1, context // 2, context):
            state = model.init_state(1, T)
            # `decoding` checks that any other split gives the same state, unless all tokens are read again.
            for n in (T - 1, 1) if comparable(model, T - 1, T) else (T,):
                _, state = model.decode(torch.zeros(1, n, dtype=torch.long), state) if n else (None, state)
            measured, declared = states.nbytes(state), model.state_bytes(T)
            if measured != declared:
                raise Fault(
                    f"state_bytes({T}) is {declared}, the state after {T} tokens takes {measured}; look at init_state()"
                )
            seen.append(measured)
    return f"{min(seen)} to {max(seen)} bytes a row at {len(seen)} sizes and lengths, as measured"


def declared_growth(subject: Subject) -> str:
    """Checks `traits.state_growth` by measurement, and that a model with extrapolates=False cannot extrapolate."""
    model, context = subject.model(), subject.context
    extrapolates = model.traits.extrapolates
    longest = 32 * context if extrapolates else context
    lengths = (longest // 4, longest // 2, longest)
    sizes = []
    for n in lengths:
        layers = model.init_layers(1, n, torch.empty(0, device=model.device, dtype=model.dtype))
        sizes.append(states.nbytes(layers) if layers is not None else 8 * n)  # else the base keeps the token ids
    growth = _growth(*sizes)
    declared = subject.cls.traits is not LanguageModel.traits  # defaults are no declaration
    if declared and growth != model.traits.state_growth:
        raise Fault(
            f"traits says state_growth={model.traits.state_growth!r}, but the state takes "
            f"{', '.join(f'{size} bytes for {n} tokens' for size, n in zip(sizes, lengths, strict=True))}: declare "
            f"state_growth={growth!r}"
        )
    if declared and not extrapolates and _works_beyond_context(model, subject):
        raise Fault(
            f"traits says extrapolates=False, but features() of {context + 5} tokens works and agrees with its first "
            f"{context}: declare extrapolates=True"
        )
    return f"state growth: {growth}; {'extrapolates' if extrapolates else 'does not extrapolate'}"


def _growth(first: int, second: int, third: int) -> str:
    """Returns the growth of a state that has these sizes after n, 2n and 4n tokens.

    If the growth is logarithmic, each doubling of the length adds the same size; if it is linear, twice as much as the
    one before.
    """
    if third == 0:
        return "none"
    if first == third:
        return "constant"
    return "logarithmic" if third - second < 1.5 * (second - first) else "linear"


def _works_beyond_context(model: LanguageModel, subject: Subject) -> bool:
    """True if a text longer than the context runs, and does not change the logits inside the context."""
    idx = subject.tokens(1, subject.context + 5)
    with torch.no_grad():
        try:
            longer_BTV = model.head(model.features(idx)[0])
        except Exception:  # a model may raise any error for a text that is too long
            return False
        inside_BTV = model(idx[:, : subject.context]).logits
    return longer_BTV.shape[1] == idx.shape[1] and torch.allclose(
        longer_BTV[:, : subject.context], inside_BTV, atol=1e-4
    )
