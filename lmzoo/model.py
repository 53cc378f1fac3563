"""The contract: the methods that are the same for every language model, whatever its architecture.

A backbone defines how tokens become features (`features`) and sets a `head` that maps features to logits. Everything
else is defined here and final: forward, loss, decoding, generation, counting, saving.
Legend: B batch, T time, V vocabulary, D model width.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, Unpack, final

import torch
from torch import Tensor, nn

from lmzoo import arguments, bounds, configs, humanize, losses
from lmzoo.configs import require_positive
from lmzoo.errors import InputError
from lmzoo.flops import active_shares, flops_per_token
from lmzoo.roles import ROLES as ROLES
from lmzoo.sampling import named_settings
from lmzoo.state import State, TimeBuffer, check, nbytes, rows, tensors

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer
    from lmzoo.inference.compiled import CompiledStep
    from lmzoo.sampling_config import SamplingSettings

_STATE_KEYS = {"model", "position", "tokens", "layers"}
_STATE_ERRORS = (TypeError, AttributeError, LookupError, ValueError, RuntimeError)  # of layers, for a state of others
_LARGE_STATE = 1 << 20  # rows times tokens from which the memory of a state is checked before it is allocated
_PROBED = (64, 128)  # lengths at which the size of a row is measured, to estimate it at any other

StateGrowth = Literal["none", "constant", "logarithmic", "linear"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of every model. A backbone's config extends it and checks its own rules in `__post_init__`.

    `scaled` is used by `create_model(..., match=...)`: it maps each field that grows with the model's width to the
    multiple that the field is rounded to; the field that is tuned last comes last.
    """

    scaled: ClassVar[dict[str, int]] = {}

    vocab_size: int  # number of tokens that the tokenizer knows, which decides it
    context_length: int = 256  # tokens per training sequence; without `extrapolates`, the most that the model can see

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "context_length")


class LMOutput(NamedTuple):
    """The result of a forward pass; unpacks as `logits, loss`."""

    logits: Tensor | None  # (B, T, V); None only with `return_logits=False`
    loss: Tensor | None  # scalar, nats per token; None without targets


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Properties that a model declares about itself; the conformance checks compare each with the model."""

    extrapolates: bool = False  # works beyond `context_length`; else it sees a sliding window of the last tokens
    receptive_field: int | None = None  # tokens, the present one included, that logits can depend on; None: all
    state_growth: StateGrowth = "linear"  # growth of the decoding state with the number of tokens
    uniform_at_start: bool = True  # with initial weights the loss is within 5 % of ln V
    random_in_training: bool = False  # train mode draws random numbers beside dropout (router noise, stochastic depth)
    data_dependent_shapes: bool = False  # shapes depend on tensor values, so one graph cannot capture `forward`
    chooses: bool = False  # rounding changes what `stable_topk` takes: 16 bits are checked with equal choices
    trainable: bool = True  # has parameters, which are trained by gradients; if False, `fit` computes all it knows


class LanguageModel(nn.Module, ABC):
    """The base class of every model. A subclass implements `features`, sets `head`, and overrides no final method."""

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    family: ClassVar[str] = ""  # the registered name
    head: nn.Module  # (..., D) -> (..., V)
    compiled_step: CompiledStep | None = None  # set in a copy for decoding (`lmzoo.inference`)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    # Defined by the backbone ------------------------------------------------------------------------------------------

    @abstractmethod
    def features(self, idx_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Maps tokens (B, T) int64 to features (B, T, D); returns the features and the next state.

        In training `state` is None: the sequence starts here, and None is returned as the next state. In decoding
        `state` comes from `init_layers` or an earlier call, represents the earlier tokens, and must not be changed.
        """

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        """Returns the state of the backbone's layers before the first token.

        `max_len` is the number of tokens to allocate memory for. `like` is a tensor with the model's dtype and device.
        None, the default, means that `features` keeps no state: each decoding step then reads all tokens so far again.
        """
        return None

    def same_until(self, length: int) -> int | None:
        """Returns the length up to which a text of `length` tokens can grow before earlier tokens are computed anew.

        None, the default, means any length. Some rules of rotary positions depend on the length of the text: decoding
        past this length reads all tokens again.
        """
        return None

    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Returns named auxiliary losses (scalars) for training; x is (B, T, D), idx and targets are (B, T).

        Called in train mode with targets only. Auxiliary losses take part in the backward pass and are never part of
        the reported loss. A layer that computes one from its own input calls `losses.auxiliary_loss` instead.
        """
        return {}

    def fit(self, tokens_BT: Tensor) -> None:
        """Computes from a text what a model with `trainable=False` knows, in its buffers; replaces an earlier result.

        The text is given as ids in rows, which are read separately; a shorter row is padded at its end with
        `IGNORE_INDEX`. Training calls this once, instead of an optimizer, with the sequences that a trained model would
        have seen. The shapes of the buffers must not change. Raises `InputError` for a model that is trained by
        gradients.
        """
        raise InputError(f"{self.family or type(self).__name__} has no fit: it is trained by gradients")

    @property
    def traits(self) -> Traits:
        """Returns the properties that this model declares about itself."""
        return Traits()

    # Forward and loss -------------------------------------------------------------------------------------------------

    @final
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        """`logits, loss = model(idx, targets)`: idx, targets (B, T) int64 -> logits (B, T, V), loss a scalar in nats.

        `targets[b, t]` is the token that follows `idx[b, t]`, or `IGNORE_INDEX`; without targets the loss is None.
        `return_logits=False` gives the same loss without keeping all logits in memory. Raises `InputError` for ids out
        of range, and for T > `context_length` if the model does not extrapolate. A batch of no rows gives empty logits
        and a loss of 0, without calling `features`.
        """
        self._check_ids("idx", idx)
        self._check_place("idx", idx)
        if idx.shape[1] == 0:
            raise InputError("idx has T=0 tokens: forward needs at least one")
        if targets is not None:
            self._check_ids("targets", targets, like=idx)
            self._check_place("targets", targets)
        if targets is None and not return_logits:
            raise InputError("return_logits=False needs targets: there would be nothing to return")
        limit = self.config.context_length
        if idx.shape[1] > limit and not self.traits.extrapolates:
            raise InputError(
                f"idx has T={idx.shape[1]} tokens, more than context_length={limit}: "
                f"{self.family or type(self).__name__} cannot look further back (decode and generate slide a window)"
            )
        if len(idx) == 0:
            logits_BTV = self._no_rows(idx.shape[1], self.config.vocab_size)
            # A sum over the parameters, so that backward() gives each a gradient of zero.
            loss = None if targets is None else sum((0.0 * p.sum() for p in self.parameters()), logits_BTV.sum())
            return LMOutput(logits_BTV if return_logits else None, loss)
        with losses.collect_auxiliary(self.training and targets is not None) as auxiliary:
            x_BTD = self._features(idx)
            if self.training and targets is not None:
                for name, value in self.extra_losses(x_BTD, idx, targets).items():
                    losses.auxiliary_loss(name, value)
        if targets is None:
            return LMOutput(self._logits(x_BTD), None)
        if return_logits:
            logits_BTV = self._logits(x_BTD)
            loss = losses.cross_entropy(logits_BTV, targets)
        else:
            logits_BTV = None
            chunk = losses.chunk_size(self.config.vocab_size)
            loss = losses.chunked_cross_entropy(x_BTD, self.head, targets, chunk=chunk)
        return LMOutput(logits_BTV, losses.with_auxiliary(loss, auxiliary))

    def _features(self, idx: Tensor) -> Tensor:
        """Returns the features (B, T, D) of whole sequences. Raises `TypeError` if `features` returns anything else.

        A tensor in the place of (x_BTD, state) would be taken apart into two rows.
        """
        found: Any = self.features(idx)
        name = f"features() of {type(self).__name__}"
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"{name} returned a {type(found).__name__}: it must return (x_BTD, state)")
        if found[0].shape[:2] != idx.shape:
            wanted = f"(B, T, D) with B = {idx.shape[0]} and T = {idx.shape[1]}"
            raise TypeError(f"{name} returned x of shape {tuple(found[0].shape)}: it must be {wanted}")
        return found[0]

    def _logits(self, x_BTD: Tensor) -> Tensor:
        """Returns the logits (B, T, V). Raises `TypeError` for a head of another width: the loss would not name it."""
        logits_BTV: Tensor = self.head(x_BTD)
        if logits_BTV.shape[-1] != self.config.vocab_size:
            raise TypeError(
                f"head of {type(self).__name__} returned logits of shape {tuple(logits_BTV.shape)}: "
                f"the last axis must be vocab_size={self.config.vocab_size}"
            )
        return logits_BTV

    # Decoding ---------------------------------------------------------------------------------------------------------

    @final
    def init_state(self, batch_size: int, max_len: int | None = None) -> State:
        """Returns the decoding state before the first token.

        Memory is allocated for `max_len` tokens (default `context_length`); for more tokens the buffers grow.
        """
        batch_size = arguments.count("batch_size", batch_size)
        max_len = self.config.context_length if max_len is None else arguments.count("max_len", max_len)
        window = None if self.traits.extrapolates else self.config.context_length
        reach = max_len if window is None else min(max_len, window)
        self._require_state_memory(batch_size, reach)
        layers = self.init_layers(batch_size, reach, torch.empty(0, device=self.device, dtype=self.dtype))
        tokens = None
        # To read tokens again: always, when the window starts to slide, or when their positions change.
        if layers is None or window is not None or self.same_until(0) is not None:
            tokens = TimeBuffer.empty(batch_size, max_len, window=window, device=self.device, dtype=torch.long)
        return {"model": self._state_name, "position": 0, "tokens": tokens, "layers": layers}

    def _require_state_memory(self, batch_size: int, max_len: int) -> None:
        """Raise `InputError` for a large state that the memory of the device cannot hold."""
        if batch_size * max_len < _LARGE_STATE:
            return
        like = torch.empty(0, device=self.device, dtype=self.dtype)
        few, more = (nbytes(self.init_layers(1, length, like)) for length in _PROBED)
        row = few + 8 * max_len + (more - few) * max_len // (_PROBED[1] - _PROBED[0])
        bounds.require_memory(f"a state of {batch_size} rows and {max_len} tokens", batch_size * row, self.device)

    @cached_property
    def _state_name(self) -> str:
        """The name that a state of this model has in it: family, settings, dtype. Cached: each step compares it."""
        settings = hashlib.sha256(repr(self.config).encode()).hexdigest()[:16]
        return f"{self.family or type(self).__name__} {settings} {self.dtype}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Called by torch for `to`, `double` and others, which may change the dtype in the name of the states."""
        self.__dict__.pop("_state_name", None)
        return super()._apply(fn, recurse)

    @final
    @torch.no_grad()
    def decode(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads T more tokens: idx (B, T) -> logits of the last position (B, V) and the next state.

        T > 1 is a prefill, T = 1 a step; any split of a sequence gives the logits of `forward` on the whole sequence.
        `state` stays valid and unchanged. Runs under `torch.no_grad()`. Dropout follows the model's mode: call `eval()`
        first, as `generate` does.
        """
        given = state
        state = self._with_tokens(idx, state)
        if len(idx) == 0:
            return self._no_rows(self.config.vocab_size), state
        try:
            layers, step = state["layers"], self.compiled_step
            if step is not None and step.can_take(idx, layers):
                logits_BV, layers = step(idx, layers)
                return logits_BV, {**state, "layers": layers}
            x_BSD, state = self._read(idx, state)
            return self.head(x_BSD[:, -1]), state
        except _STATE_ERRORS:
            self._explain(idx, given)
            raise

    @final
    @torch.no_grad()
    def decode_all(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Like `decode`, but returns the logits of every new position: idx (B, T) -> logits (B, T, V), next state.

        Past `context_length` a model that does not extrapolate has a different window at every position, so it reads
        those tokens one by one. So does one whose positions change with the length of the text (`same_until`). Raises
        `InputError` like `decode`.
        """
        self._check_ids("idx", idx)
        self.check_state(state, len(idx))
        T = idx.shape[1]
        if T == 0:
            raise InputError("idx has T=0 tokens: decode_all needs at least one")
        if len(idx) == 0:
            return self._no_rows(T, self.config.vocab_size), self._with_tokens(idx, state)
        given, pieces = state, list[Tensor]()
        try:
            for start, end in pairwise(self._ends(state, T)):
                x_BSD, state = self._read(idx[:, start:end], self._with_tokens(idx[:, start:end], state))
                pieces.append(self.head(x_BSD[:, start - end :]))
        except _STATE_ERRORS:
            self._explain(idx, given)
            raise
        return torch.cat(pieces, dim=1), state

    def _ends(self, state: State, T: int) -> list[int]:
        """Returns 0, and the ends of the pieces in which T tokens are read, so that each has the logits of its text."""
        position, tokens = state["position"], state["tokens"]
        if tokens is None or (self.same_until(0) is None and position + T <= self.config.context_length):
            return [0, T]
        window = None if self.traits.extrapolates else self.config.context_length  # asked last: it asks each layer
        ends = [0]
        while ends[-1] < T:
            past = position + ends[-1]
            limit = self.same_until(past) if window is None else window
            ends.append(T if limit is None else min(T, max(past + 1, limit) - position))
        return ends

    def _no_rows(self, *shape: int) -> Tensor:
        """Returns the logits of a batch of no rows: layers need not handle it (an FFT or an expert cannot)."""
        return torch.zeros(0, *shape, device=self.device, dtype=self.dtype)

    def _with_tokens(self, idx: Tensor, state: State) -> State:
        """Returns the state with the new token ids and position; `layers` is unchanged, or None if no longer valid."""
        self._check_ids("idx", idx)
        if idx.shape[1] == 0:
            raise InputError("idx has T=0 tokens: decode needs at least one")
        self.check_state(state, len(idx))
        position = state["position"] + idx.shape[1]
        tokens, layers = state["tokens"], state["layers"]
        if tokens is not None:
            tokens = tokens.append(idx)
        # Without `tokens` it extrapolates; asking that first saves asking each layer in each step.
        if tokens is not None and position > self.config.context_length and not self.traits.extrapolates:
            layers = None  # every token has a new position in the window, so the layers' state is no longer valid
        elif state["position"] and position > (self.same_until(state["position"]) or position):
            layers = None
        return {**state, "position": position, "tokens": tokens, "layers": layers}

    @final
    def check_state(self, state: State, batch_size: int) -> None:
        """Raise `InputError` unless `state` is of this model, or one with the same settings, and has `batch_size` rows.

        Reads the name, the numbers and one tensor of the state, so it is cheap enough for each step.
        """
        if not isinstance(state, dict) or state.keys() != _STATE_KEYS:
            raise InputError(f"state is a {type(state).__name__}: it must come from init_state or decode of this model")
        name, position, tokens = state["model"], state["position"], state["tokens"]
        if name != self._state_name:
            raise InputError(f"state belongs to the model {name}: this one is {self._state_name}")
        if type(position) is not int or not 0 <= position < arguments.LIMIT:
            raise InputError(f"state has the position {position!r}: it must be an integer, 0 or above")
        if not (tokens is None or isinstance(tokens, TimeBuffer)) or (tokens is None and state["layers"] is None):
            raise InputError(
                "state has neither tokens nor layers: it must come from init_state or decode of this model"
            )
        there = rows(state["layers"] if tokens is None else tokens)
        if there is not None and there != batch_size:
            raise InputError(f"state has {there} rows, idx has {batch_size}: they must be the same sequences")

    def _explain(self, idx: Tensor, state: State) -> None:
        """Raise `InputError` for ids on another device, or a state whose layers do not have the form of this model's.

        Called after an error, because it takes too long for each step.
        """
        self._check_place("idx", idx)
        layers = state["layers"]
        if layers is not None:
            like = torch.empty(0, device=self.device, dtype=self.dtype)
            check(layers, self.init_layers(1, 1, like))
            place = next((tensor.device for tensor in tensors(layers) if tensor.device != self.device), None)
            if place is not None:
                raise InputError(f"state is on {place}, the model on {self.device}")

    def _read(self, idx: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns features (B, S, D), S >= T, of which the last T belong to idx (B, T), and the next state.

        `state` is the result of `_with_tokens`.
        """
        if state["layers"] is None:
            idx, position = state["tokens"].entries(), state["position"]
            layers = None
            if self.same_until(0) is not None and self.same_until(position) != position:  # it can be continued
                like = torch.empty(0, device=self.device, dtype=self.dtype)
                layers = self.init_layers(len(idx), position + 1, like)
            x_BSD, layers = self.features(idx, layers)
            return x_BSD, {**state, "layers": layers}
        x_BSD, layers = self.features(idx, state["layers"])
        return x_BSD, {**state, "layers": layers}

    @final
    def score(self, idx: Tensor) -> Tensor:
        """Returns the log-probability of each token given the earlier ones: idx (B, T) -> (B, T - 1) float32.

        The first token has no log-probability. Dropout is off. Past `context_length` it works as `decode` does; memory
        does not grow with T times V. Raises `InputError` like `decode`.
        """
        return _sampler().score(self, idx)

    @final
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        *positional: object,
        stop_tokens: Sequence[int] = (),
        generator: torch.Generator | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> Tensor:
        """Continues the prompts idx (B, T) by `max_new_tokens` sampled tokens each: (B, T + max_new_tokens) int64.

        `settings` are the fields of `SamplingConfig`: `temperature` (0 is greedy), `top_k`, `top_p`, `min_p`,
        `repetition_penalty` and the others. A row that drew one of `stop_tokens` repeats it to the end. For more
        options (several samples per prompt, forced tokens, logits processors, settings and seeds per row) call
        `lmzoo.generation.generate`.
        """
        arguments.no_positional("generate", positional, "temperature")
        config = named_settings(settings)
        return _sampler().generate(self, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)

    @final
    def stream(
        self,
        idx: Tensor,
        max_new_tokens: int,
        *positional: object,
        stop_tokens: Sequence[int] = (),
        generator: torch.Generator | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> Iterator[Tensor]:
        """Like `generate`, one step at a time: yields the new tokens (B,); ends when all rows have stopped."""
        arguments.no_positional("stream", positional, "temperature")
        config = named_settings(settings)
        return _sampler().stream(self, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)

    # Counting ---------------------------------------------------------------------------------------------------------

    @final
    def num_params(self, *, embedding: bool = True, active: bool = False) -> int:
        """Returns the number of parameters; a tied parameter counts once.

        `embedding=False` leaves out token and position embeddings, but not an untied head. `active=True` counts of each
        parameter only the share that predicting one token uses, which layers declare in `active` (experts) and `calls`
        (parts that run in training only).
        """
        shares = active_shares(self) if active else {}
        wanted = (p for p, role in self._roles() if embedding or role != "embedding")
        return round(sum(p.numel() * shares.get(id(p), 1.0) for p in wanted))

    @final
    def flops_per_token(self, T: int) -> float:
        """Returns the FLOPs per token of a forward pass over T tokens, two per multiply-add (training: about 3 times).

        Matrix products are counted as by torch's FLOP counter (attention over all T positions, masked or not),
        recurrences by the multiply-adds of their definition. Elementwise operations (norms, activations) are not
        counted. A model in which no module declares `flops` is measured by torch's counter.
        """
        return flops_per_token(self, arguments.count("T", T, least=1))

    @final
    def state_bytes(self, T: int) -> int:
        """Returns the bytes of one row's decoding state after T tokens, without memory allocated for later tokens."""
        return nbytes(self.init_state(1, arguments.count("T", T)))

    @final
    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Returns one parameter group per role for an optimizer; the role `vector` gets no weight decay.

        Each group has its `role`, so that an optimizer can treat some differently: `matrix` (a map from features to
        features, trained by Muon), `matrices` (a stack of such matrices, in the last two axes), `embedding` (a row per
        token or position), `head` (a row per token), `vector` (biases, norm weights and all others), `constant` (drawn
        once and never trained: `requires_grad=False`). Raises `InputError` unless `weight_decay` is a number from 0 on.
        """
        if not configs.is_number(weight_decay) or not 0 <= weight_decay < math.inf:
            raise InputError(f"weight_decay={weight_decay!r} must be a number, 0 or above")
        groups: dict[str, list[Tensor]] = {}
        for parameter, role in self._roles():
            groups.setdefault(role, []).append(parameter)
        return [
            {"params": params, "role": role, "weight_decay": 0.0 if role in ("vector", "constant") else weight_decay}
            for role, params in sorted(groups.items())
        ]

    def _roles(self) -> Iterator[tuple[Tensor, str]]:
        """Yields each parameter once with its role, from `parameter_roles` or from its module and shape."""
        seen: set[int] = set()
        heads = set(self.head.modules())
        for module in self.modules():
            declared = getattr(module, "parameter_roles", {})
            table = "embedding" if isinstance(module, nn.Embedding) else "head" if module in heads else "matrix"
            table = "vector" if has_filters(module) else table
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter, declared.get(name, table if parameter.ndim >= 2 else "vector")

    # Weights ----------------------------------------------------------------------------------------------------------

    @final
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights: each layer draws its own. With a `generator`, torch's global random state is not used.

        A module without `init_parameters`, such as torch's own, keeps the weights that its constructor drew.
        """
        arguments.generator(generator)
        for module in self.modules():
            init = getattr(module, "init_parameters", None)
            if callable(init):
                init(generator)

    @final
    def save(self, path: str | Path, *, tokenizer: Tokenizer | None = None) -> None:
        """Writes `model.safetensors`, `config.json` and a manifest to the folder `path`, for `lmzoo.load_model`.

        With its `tokenizer`, the folder works in `lmzoo sample` and `lmzoo eval`, too. The config holds some logits of
        the model, so that loading it detects a part that was changed after the model was built.
        """
        from lmzoo.storage import models

        models.save_model(self, path, tokenizer)

    def _repr_html_(self) -> str:
        """The lines that a notebook shows: the family, its size, and its settings."""
        name, traits = self.family or type(self).__name__, self.traits
        reach = "unlimited" if traits.receptive_field is None else f"{traits.receptive_field:,}"
        facts = f"{humanize.count(self.num_params())} parameters, receptive field {reach}, state {traits.state_growth}"
        settings = ", ".join(f"{key}={value!r}" for key, value in configs.to_dict(self.config).items())
        return f"<p><b>{escape(name)}</b>: {escape(facts)}</p><p><code>{escape(settings)}</code></p>"

    @property
    def device(self) -> torch.device:
        """Returns the device of the weights, or of the buffers of a model without weights."""
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of the weights."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def _check_ids(self, name: str, idx: Tensor, *, like: Tensor | None = None) -> None:
        if torch.compiler.is_compiling():
            return  # values are not available while a graph is captured
        if not isinstance(idx, Tensor) or idx.layout != torch.strided or idx.is_nested:
            layout = "nested" if isinstance(idx, Tensor) and idx.is_nested else getattr(idx, "layout", None)
            kind = f"{layout} tensor" if isinstance(idx, Tensor) else type(idx).__name__
            raise InputError(f"{name} is a {kind}: it must be an int64 tensor (B, T), such as torch.tensor([[1, 2]])")
        if idx.ndim != 2 or idx.dtype != torch.long:
            raise InputError(f"{name} is {idx.dtype} of shape {tuple(idx.shape)}: it must be int64 of shape (B, T)")
        if like is not None and idx.shape != like.shape:
            raise InputError(f"{name} has shape {tuple(idx.shape)}: it must be the shape of idx, {tuple(like.shape)}")
        if idx.numel() == 0 or idx.device.type != "cpu":
            return  # reading values from a GPU would synchronize at every step; there the embedding itself asserts
        low, high = (int(v) for v in torch.aminmax(idx if like is None else idx.where(idx != losses.IGNORE_INDEX, 0)))
        if low < 0 or high >= self.config.vocab_size:
            bad = low if low < 0 else high
            raise InputError(f"{name} holds the id {bad}: ids must be in [0, vocab_size={self.config.vocab_size})")

    def _check_place(self, name: str, idx: Tensor) -> None:
        if not torch.compiler.is_compiling() and idx.device != self.device:
            raise InputError(f"{name} is on {idx.device}, the model on {self.device}: move it there with .to()")


def require_model(name: str, value: object) -> None:
    """Raise `InputError` unless `value` is a `LanguageModel`: for functions that take one as the argument `name`."""
    if not isinstance(value, LanguageModel):
        raise InputError(f"{name}={type(value).__name__} must be a LanguageModel")


def has_filters(module: nn.Module) -> bool:
    """True for a torch convolution with a filter for each feature: its weights multiply elementwise."""
    return isinstance(module, (nn.Conv1d, nn.Conv2d)) and module.groups == module.in_channels > 1


def _sampler() -> Any:
    """Imports the sampler at its first use: it imports this module, whose methods call it. The only import cycle."""
    from lmzoo import generation

    return generation
