"""The contract: everything that is the same for every language model, whatever its architecture.

A backbone defines how tokens become features (`features`) and sets a `head` that maps features to logits. Everything
else is here and final: forward, loss, decoding, generation, counting, saving.
Legend: B batch, T time, V vocabulary, D model width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Unpack, final

import torch
from torch import Tensor, nn

from lmzoo import losses
from lmzoo.configs import require_positive
from lmzoo.errors import InputError
from lmzoo.flops import active_shares, flops_per_token
from lmzoo.sampling import SamplingConfig
from lmzoo.state import State, TimeBuffer, nbytes

if TYPE_CHECKING:
    from lmzoo.inference.compiled import CompiledStep
    from lmzoo.sampling_config import SamplingSettings

StateGrowth = Literal["none", "constant", "logarithmic", "linear"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of every model. A backbone's config extends it and checks its own rules in `__post_init__`.

    `scaled` names the fields that grow with the model's width, each with the multiple it is rounded to and the one that
    is tuned last at the end: that is all that matching a number of parameters needs.
    """

    scaled: ClassVar[dict[str, int]] = {}

    vocab_size: int
    context_length: int = 256  # tokens seen in training; for a model that does not extrapolate, the most it can see

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "context_length")


class LMOutput(NamedTuple):
    """Unpacks as `logits, loss`."""

    logits: Tensor | None  # (B, T, V); None only when asked for by `return_logits=False`
    loss: Tensor | None  # scalar, nats per token; None without targets


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Properties that a model declares; the conformance checks hold it to every word."""

    extrapolates: bool = False  # goes on past `context_length`; else it sees a sliding window of the last tokens
    receptive_field: int | None = None  # tokens, the present one included, that a prediction can depend on; None: all
    state_growth: StateGrowth = "linear"  # of the decoding state with the tokens seen
    uniform_at_start: bool = True  # a fresh model predicts nearly uniformly: its loss is within 5 % of ln V


class LanguageModel(nn.Module, ABC):
    """Base of every model. A subclass implements `features` and sets `self.head`; it overrides nothing marked final."""

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    family: ClassVar[str] = ""  # the registered name
    head: nn.Module  # (..., D) -> (..., V)
    compiled_step: CompiledStep | None = None  # set in a copy for decoding (`lmzoo.inference`)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    # What a backbone defines ------------------------------------------------------------------------------------------

    @abstractmethod
    def features(self, idx_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (B, T) int64 to features (B, T, D), and the next state.

        `state` is None for a sequence that starts here and needs no successor (training), and then None is returned.
        Otherwise it came from `init_layers` or from an earlier call, holds what is needed of the earlier tokens, and
        must be left unchanged.
        """

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        """The state of the backbone's layers before the first token, with room for `max_len` tokens.

        `like` is a tensor with the model's dtype and device. None, the default, means that `features` keeps no state:
        decoding then recomputes from the tokens so far.
        """
        return None

    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Named scalars to minimize beside the loss, in training alone; x is (B, T, D), idx and targets are (B, T).

        They take part in the backward pass and are never part of a reported loss. A loss that a single layer can
        compute needs no hook: the layer calls `losses.auxiliary_loss`.
        """
        return {}

    @property
    def traits(self) -> Traits:
        """What this model declares about itself."""
        return Traits()

    # Forward and loss -------------------------------------------------------------------------------------------------

    @final
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        """`logits, loss = model(idx, targets)`: idx, targets (B, T) int64 -> logits (B, T, V), loss a scalar in nats.

        `targets[b, t]` is the token that follows `idx[b, t]`, or `IGNORE_INDEX`; without targets the loss is None.
        `return_logits=False` gives the same loss without holding all logits. Raises `InputError` on ids out of range
        and on T beyond `context_length` for a model that does not extrapolate.
        """
        self._check_ids("idx", idx)
        if targets is None and not return_logits:
            raise InputError("return_logits=False needs targets: there would be nothing to return")
        limit = self.config.context_length
        if idx.shape[1] > limit and not self.traits.extrapolates:
            raise InputError(
                f"idx has T={idx.shape[1]} tokens, more than context_length={limit}: "
                f"{self.family or type(self).__name__} cannot look further back (decode and generate slide a window)"
            )
        with losses.collect_auxiliary(self.training and targets is not None) as auxiliary:
            x_BTD, _ = self.features(idx)
            if self.training and targets is not None:
                for name, value in self.extra_losses(x_BTD, idx, targets).items():
                    losses.auxiliary_loss(name, value)
        if targets is None:
            return LMOutput(self.head(x_BTD), None)
        self._check_ids("targets", targets, like=idx)
        if return_logits:
            logits_BTV = self.head(x_BTD)
            loss = losses.cross_entropy(logits_BTV, targets)
        else:
            logits_BTV = None
            chunk = losses.chunk_size(self.config.vocab_size)
            loss = losses.chunked_cross_entropy(x_BTD, self.head, targets, chunk=chunk)
        return LMOutput(logits_BTV, losses.with_auxiliary(loss, auxiliary))

    # Decoding ---------------------------------------------------------------------------------------------------------

    @final
    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """The decoding state before the first token, with room for `max_len` tokens (default `context_length`).

        Decoding may go on past `max_len`: the buffers then grow.
        """
        max_len = self.config.context_length if max_len is None else max_len
        window = None if self.traits.extrapolates else self.config.context_length
        reach = max_len if window is None else min(max_len, window)
        layers = self.init_layers(batch_size, reach, torch.empty(0, device=self.device, dtype=self.dtype))
        tokens = None
        if layers is None or window is not None:  # needed to recompute from, at once or when the window begins to slide
            tokens = TimeBuffer.empty(batch_size, max_len, window=window, device=self.device, dtype=torch.long)
        return {"position": 0, "tokens": tokens, "layers": layers}

    @final
    @torch.no_grad()
    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Read T more tokens: idx (B, T) -> logits of the last position (B, V) and the next state.

        T > 1 is a prefill, T = 1 a step; any split of a sequence gives what `forward` gives on the whole. `state` stays
        valid and unchanged. Dropout follows the model's mode: call `eval()` first, as `generate` does.
        """
        state = self._with_tokens(idx, state)
        layers, step = state["layers"], self.compiled_step
        if step is not None and step.can_take(idx, layers):
            logits_BV, layers = step(idx, layers)
            return logits_BV, {**state, "layers": layers}
        x_BSD, state = self._read(idx, state)
        return self.head(x_BSD[:, -1]), state

    @final
    @torch.no_grad()
    def decode_all(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """As `decode`, with the logits of every new position: idx (B, T) -> logits (B, T, V) and the next state.

        Past `context_length` a model that does not extrapolate has another window at every position: it reads those
        tokens one by one.
        """
        T = idx.shape[1]
        together = T if self.traits.extrapolates else min(T, max(1, self.config.context_length - state["position"]))
        pieces = []
        for start, end in [(0, together), *((t, t + 1) for t in range(together, T))]:
            x_BSD, state = self._read(idx[:, start:end], self._with_tokens(idx[:, start:end], state))
            pieces.append(self.head(x_BSD[:, start - end :]))
        return torch.cat(pieces, dim=1), state

    def _with_tokens(self, idx: Tensor, state: State) -> State:
        """The state with the tokens noted; its layers are still those before them, or None when they are of no use."""
        self._check_ids("idx", idx)
        if idx.shape[1] == 0:
            raise InputError("idx has T=0 tokens: decode needs at least one")
        position = state["position"] + idx.shape[1]
        tokens, layers = state["tokens"], state["layers"]
        if tokens is not None:
            tokens = tokens.append(idx)
        if not self.traits.extrapolates and position > self.config.context_length:
            layers = None  # every position has moved within the window: nothing that was computed before still holds
        return {"position": position, "tokens": tokens, "layers": layers}

    def _read(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Features (B, S, D), S >= T, of which the last are those of idx (B, T), and the next state.

        `state` is that of `_with_tokens`.
        """
        if state["layers"] is None:
            x_BSD, _ = self.features(state["tokens"].entries())
            return x_BSD, state
        x_BSD, layers = self.features(idx, state["layers"])
        return x_BSD, {**state, "layers": layers}

    @final
    def score(self, idx: Tensor) -> Tensor:
        """The natural log of each token's probability given those before it: idx (B, T) -> (B, T - 1) float32.

        The first token has none. Dropout is off. Past `context_length` it looks back as `decode` does; memory does not
        grow with T times V. Raises `InputError` as `decode` does.
        """
        return _sampler().score(self, idx)

    @final
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        *,
        stop_tokens: Sequence[int] = (),
        generator: torch.Generator | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> Tensor:
        """Continue the prompts idx (B, T) by `max_new_tokens` sampled tokens each: (B, T + max_new_tokens) int64.

        `settings` are the fields of `SamplingConfig`: `temperature` (0 is greedy), `top_k`, `top_p`, `min_p`,
        `repetition_penalty` and the others. A row that drew one of `stop_tokens` repeats it to the end. More (samples
        per prompt, forced tokens, your own processors, settings and seeds per row): `lmzoo.generation.generate`.
        """
        config = SamplingConfig(**settings)
        return _sampler().generate(self, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)

    @final
    def stream(
        self,
        idx: Tensor,
        max_new_tokens: int,
        *,
        stop_tokens: Sequence[int] = (),
        generator: torch.Generator | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> Iterator[Tensor]:
        """As `generate`, one step at a time: yields the new tokens (B,) as they come; ends when all rows stopped."""
        config = SamplingConfig(**settings)
        return _sampler().stream(self, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)

    # Counting ---------------------------------------------------------------------------------------------------------

    @final
    def num_params(self, *, embedding: bool = True, active: bool = False) -> int:
        """Number of parameters, tied ones once.

        `embedding=False` leaves out token and position tables, not an untied head. `active=True` counts of each
        parameter the share that the prediction of one token uses, as layers declare it: `active` (experts) and `calls`
        (parts that run in training alone).
        """
        shares = active_shares(self) if active else {}
        wanted = (p for p, role in self._roles() if embedding or role != "embedding")
        return round(sum(p.numel() * shares.get(id(p), 1.0) for p in wanted))

    @final
    def flops_per_token(self, T: int) -> float:
        """FLOPs of one token's forward pass in a sequence of T, two per multiply-add; training takes about 3 times it.

        Matrix products are counted as torch's own counter does (attention over all T, masked or not), recurrences at
        the multiply-adds their definition takes; what is done per feature alone (norms, activations) is left out.
        A model in which no module declares `flops` is measured by that counter instead.
        """
        return flops_per_token(self, T)

    @final
    def state_bytes(self, T: int) -> int:
        """Bytes of one row's decoding state after T tokens: the entries in reach, not memory kept for later ones."""
        return nbytes(self.init_state(1, T))

    @final
    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimizer: `vector` (biases, norm weights and the like) is not decayed, the others are.

        Each group also has its `role`, so that an optimizer can treat some differently: `matrix` (a map from features
        to features, what Muon takes), `matrices` (several in one tensor, in its last two axes), `embedding` (a row per
        token or position), `head` (a row per token, at the other end).
        """
        groups: dict[str, list[Tensor]] = {}
        for parameter, role in self._roles():
            groups.setdefault(role, []).append(parameter)
        return [
            {"params": params, "role": role, "weight_decay": 0.0 if role == "vector" else weight_decay}
            for role, params in sorted(groups.items())
        ]

    def _roles(self) -> Iterator[tuple[Tensor, str]]:
        """Yields each parameter once with its role: from its owner's `parameter_roles`, or by place and dimensions."""
        seen: set[int] = set()
        heads = set(self.head.modules())
        for module in self.modules():
            declared = getattr(module, "parameter_roles", {})
            table = "embedding" if isinstance(module, nn.Embedding) else "head" if module in heads else "matrix"
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter, declared.get(name, table if parameter.ndim >= 2 else "vector")

    # Weights ----------------------------------------------------------------------------------------------------------

    @final
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draws all weights anew, each layer its own. With a `generator`, torch's global random state is left alone."""
        for module in self.modules():
            init = getattr(module, "init_parameters", None)
            if callable(init):
                init(generator)

    @final
    def save(self, path: str | Path) -> None:
        """Write the folder `path` with `model.safetensors`, `config.json`, a manifest; `lmzoo.load_model` reads it."""
        from lmzoo.storage import models

        models.save_model(self, path)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored as."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def _check_ids(self, name: str, idx: Tensor, *, like: Tensor | None = None) -> None:
        if torch.compiler.is_compiling():
            return  # values cannot be looked at while a graph is captured
        if idx.ndim != 2 or idx.dtype != torch.long:
            raise InputError(f"{name} is {idx.dtype} of shape {tuple(idx.shape)}: it must be int64 of shape (B, T)")
        if like is not None and idx.shape != like.shape:
            raise InputError(f"{name} has shape {tuple(idx.shape)}: it must be that of idx, {tuple(like.shape)}")
        if idx.numel() == 0 or idx.device.type != "cpu":
            return  # looking at values on a GPU would make every step wait for it; the embedding asserts there
        low, high = (int(v) for v in torch.aminmax(idx if like is None else idx.where(idx != losses.IGNORE_INDEX, 0)))
        if low < 0 or high >= self.config.vocab_size:
            bad = low if low < 0 else high
            raise InputError(f"{name} holds the id {bad}: ids must be in [0, vocab_size={self.config.vocab_size})")


def _sampler() -> Any:
    """The sampler, imported when it is first used: it is written against this module, and this module offers it as
    methods. This is the one import that closes a circle.
    """
    from lmzoo import generation

    return generation
