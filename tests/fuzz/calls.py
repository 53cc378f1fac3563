"""Cases of Python calls: the public functions and methods with arguments of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

import lmzoo
from lmzoo import generation
from lmzoo.data import train_tokenizer
from lmzoo.gguf.write import write_gguf
from lmzoo.hf.directory import export
from lmzoo.inference import decoding_copy
from lmzoo.inspect.influence import influence
from lmzoo.inspect.record import record
from tests.fuzz import values
from tests.fuzz.watch import Case, Place

FAMILIES = ("gpt2", "llama", "lstm", "mamba", "bigram", "mlp", "deltanet", "mixtral")
SIZES = {"vocab_size": 11, "context_length": 8}


@cache
def model_of(family: str) -> lmzoo.LanguageModel:
    """Returns the small model of a family that all cases share."""
    name = f"{family}.tiny" if lmzoo.list_models(f"{family}.tiny") else family
    return lmzoo.create_model(name, generator=torch.Generator().manual_seed(0), **SIZES).eval()


def case(draw: random.Random, place: Place) -> Case:
    """Draws a call and one or two of its arguments; the others are good."""
    family = draw.choice(FAMILIES)
    model, other = model_of(family), model_of(draw.choice(FAMILIES))
    names = draw.sample(list(CALLS), k=1)
    call, good = CALLS[names[0]]
    arguments = {name: make() for name, make in good(model).items()}
    shown = {}
    for name in draw.sample(list(arguments), k=min(len(arguments), draw.choice((1, 1, 2)))):
        shown[name] = arguments[name] = _argument(draw, name, other, place)
    takes_any = (
        "max_new_tokens" in arguments and not {"beams", "top"} & arguments.keys() and names[0] != "generate_text"
    )
    if draw.random() < 0.05 and takes_any:
        shown["do_sample"] = arguments["do_sample"] = True
    return Case(f"{names[0]} of {family} with {_shown(shown)}", lambda: call(model, **arguments))


def _shown(arguments: dict[str, Any]) -> str:
    tensors = {
        name: f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)[:200]
        for name, value in arguments.items()
    }
    return ", ".join(f"{name}={text}" for name, text in tensors.items())


def _argument(draw: random.Random, name: str, other: lmzoo.LanguageModel, place: Place) -> Any:
    kind = draw.random()
    if name in ("idx", "targets", "prompts", "rows") and kind < 0.7:
        return _tensor(draw)
    if name in ("state", "prefix") and kind < 0.7:
        state = other.init_state(draw.choice((0, 1, 2, 3)))
        if isinstance(state, dict) and draw.random() < 0.6:
            key = draw.choice(list(state))
            state[key] = draw.choice((None, 3, -1, "x", {}, [], torch.zeros(2, 3), state["layers"], state["tokens"]))
        return state
    if name == "generator" and kind < 0.5:
        return torch.Generator().manual_seed(3)
    if name in ("path",):
        texts = (
            str(place.pipe),
            "/dev/null",
            "nothing",
            str(place.work / ("a" * 300)),
            "nul\0",
            str(place.work),
            "gpt2",
        )
        return draw.choice(texts) if kind < 0.8 else values.anything(draw)
    return values.anything(draw)


def _tensor(draw: random.Random) -> Any:
    shape = draw.choice(((2, 3), (1, 1), (0, 3), (2, 0), (3,), (), (2, 3, 1), (2, 40), (1, 8)))
    kind = draw.randrange(8)
    if kind == 0:
        return torch.zeros(
            shape, dtype=draw.choice((torch.float32, torch.int32, torch.bool, torch.complex64, torch.uint8))
        )
    if kind == 1:
        return torch.zeros(shape, dtype=torch.long, device="meta")
    if kind == 2:
        return torch.zeros(shape, dtype=torch.long).to_sparse() if shape else torch.tensor(0)
    if kind == 3:
        return torch.full(shape, draw.choice((-1, -100, 11, 1 << 40, -(1 << 63))), dtype=torch.long)
    if kind == 4:
        return torch.zeros(shape, dtype=torch.long).tolist()
    return torch.randint(11, shape)


def _ids() -> torch.Tensor:
    return torch.tensor([[1, 2, 3], [4, 5, 6]])


Good = Callable[[lmzoo.LanguageModel], dict[str, Callable[[], Any]]]


def _new(name: str, model: lmzoo.LanguageModel, /, **arguments: Any) -> object:
    return getattr(model, name)(**arguments)


def _method(name: str, **good: Callable[[], Any]) -> tuple[Callable[..., object], Good]:
    return (lambda model, **arguments: _new(name, model, **arguments)), lambda _: dict(good)


def _drained(model: lmzoo.LanguageModel, **arguments: Any) -> object:
    """Reads a few tokens of a stream: a longer text is no fault."""
    return [token for token, _ in zip(model.stream(**arguments), range(3), strict=False)]


def _few() -> int:
    return 3


def _none() -> None:
    return None


def letters() -> Any:
    """Returns a tokenizer with as many tokens as the models."""
    return train_tokenizer("char", ["abcdefghijk"])


def _of(module: Any, name: str, **good: Callable[[], Any]) -> tuple[Callable[..., object], Good]:
    return (lambda model, **arguments: getattr(module, name)(model, **arguments)), lambda _: {
        "idx": _ids, "max_new_tokens": _few, **good
    }  # fmt: skip


def _state_call(name: str, **good: Callable[[], Any]) -> tuple[Callable[..., object], Good]:
    def call(_model: lmzoo.LanguageModel, **arguments: Any) -> object:
        return getattr(lmzoo.state, name)(**arguments)

    return call, lambda model: {"state": lambda: model.init_state(2), **good}


SAMPLING: dict[str, Callable[[], Any]] = {
    "temperature": lambda: 0.5, "top_k": lambda: 3, "top_p": lambda: 0.9, "min_p": lambda: None,
    "logit_bias": lambda: None,
    "repetition_penalty": lambda: 1.0, "frequency_penalty": lambda: 0.0, "typical_p": lambda: None,
    "stop_tokens": tuple, "generator": lambda: None,
}  # fmt: skip
OPTIONS: dict[str, Callable[[], Any]] = {
    "stop_tokens": tuple, "generator": lambda: None, "seeds": lambda: None, "config": lambda: None,
}  # fmt: skip
CALLS: dict[str, tuple[Callable[..., object], Good]] = {
    "forward": (lambda model, **arguments: model(**arguments), lambda _: {"idx": _ids, "targets": _ids}),
    "decode": (
        lambda model, **arguments: model.decode(**arguments),
        lambda model: {"idx": _ids, "state": lambda: model.init_state(2)},
    ),
    "decode_all": (
        lambda model, **arguments: model.decode_all(**arguments),
        lambda model: {"idx": _ids, "state": lambda: model.init_state(2)},
    ),
    "init_state": _method("init_state", batch_size=lambda: 2, max_len=lambda: 8),
    "score": _method("score", idx=_ids),
    "generate": _method("generate", idx=_ids, max_new_tokens=_few, **SAMPLING),
    "stream": (_drained, lambda _: {"idx": _ids, "max_new_tokens": _few, **SAMPLING}),
    "flops_per_token": _method("flops_per_token", T=lambda: 4),
    "state_bytes": _method("state_bytes", T=lambda: 4),
    "save": _method("save", path=lambda: "nothing/there"),
    "generation.generate": _of(
        generation,
        "generate",
        n_samples=lambda: 1,
        forced_tokens=dict,
        processors=tuple,
        prefix=lambda: None,
        **OPTIONS,
    ),
    "generation.generate_ragged": (
        lambda model, **arguments: generation.generate_ragged(model, **arguments),
        lambda _: {"prompts": lambda: [[1], [2, 3]], "max_new_tokens": _few, **OPTIONS},
    ),
    "generation.beam_search": _of(
        generation, "beam_search", beams=lambda: 2, length_penalty=lambda: 0.0, stop_tokens=tuple
    ),
    "generation.generate_with_log_probs": _of(generation, "generate_with_log_probs", top=lambda: 2, **OPTIONS),
    "generation.generate_speculative": (
        lambda model, **arguments: generation.generate_speculative(model, **arguments),
        lambda model: {"draft": lambda: model, "idx": _ids, "max_new_tokens": _few, "n_guesses": lambda: 2, **OPTIONS},
    ),
    "state.select": _state_call("select", rows=lambda: [0]),
    "state.clone": _state_call("clone"),
    "state.nbytes": _state_call("nbytes"),
    "state.save": _state_call("save", path=lambda: "nothing/there"),
    "state.load": (
        lambda model, path: lmzoo.state.load(path, model.init_state(1)),
        lambda _: {"path": lambda: "nothing"},
    ),
    "load_model": (lambda _, path: lmzoo.load_model(path), lambda _: {"path": lambda: "nothing"}),
    "load_tokenizer": (lambda _, path: lmzoo.load_tokenizer(path), lambda _: {"path": lambda: "nothing"}),
    "transplant": (
        lambda model, **arguments: lmzoo.transplant(model, **arguments),
        lambda _: {
            "layers": lambda: [0],
            "to": lambda: "fox",
            "init": lambda: "qkv",
            "seed": lambda: 1,
            "window": lambda: 4,
        },
    ),
    "inspect": (
        lambda model, **arguments: lmzoo.inspect(model, **arguments),
        lambda _: {"text": lambda: "ab", "tokenizer": letters},
    ),
    "sample": (
        lambda model, **arguments: lmzoo.sample(model, **arguments),
        lambda _: {
            "prompt": lambda: "ab",
            "max_new_tokens": _few,
            "tokenizer": letters,
            "seed": lambda: None,
            "stop": tuple,
            **SAMPLING,
        },
    ),
    "influence": (
        lambda model, **arguments: influence(model, **arguments),
        lambda _: {"idx": _ids},
    ),
    "record": (lambda model, **arguments: record(model, **arguments), lambda _: {"idx": _ids}),
    "hf.export": (
        lambda model, **arguments: export(model, **arguments),
        lambda _: {
            "path": lambda: "new",
            "tokenizer": letters,
            "model_type": lambda: "lmzoo",
            "license": lambda: "mit",
            "shard_bytes": lambda: 1000,
        },
    ),
    "write_gguf": (
        lambda model, **arguments: write_gguf(model, **arguments),
        lambda _: {"path": lambda: "new.gguf", "tokenizer": letters, "dtype": lambda: "float16"},
    ),
    "read_results": (lambda _, path: lmzoo.compare.read_results(path), lambda _: {"path": lambda: "nothing"}),
    "list_models": (
        lambda _, pattern, extrapolates: lmzoo.list_models(pattern, extrapolates=extrapolates),
        lambda _: {"pattern": lambda: "*", "extrapolates": lambda: True},
    ),
    "parameter_groups": _method("parameter_groups", weight_decay=lambda: 0.1),
    "decoding_copy": (
        lambda model, **arguments: decoding_copy(model, **arguments),
        lambda _: {"weights": lambda: "bfloat16", "rows": lambda: 1},
    ),
    "train_tokenizer": (
        lambda _, **arguments: train_tokenizer(**arguments),
        lambda _: {"spec": lambda: "char", "chunks": lambda: ["ab"]},
    ),
    "generate_text": (
        lambda model, **arguments: [*generation.generate_text(model, **arguments)],
        lambda _: {
            "tokenizer": letters,
            "prompt": lambda: "ab",
            "max_new_tokens": _few,
            "stop": tuple,
            "config": _none,
        },
    ),
    "TimeBuffer.empty": (
        lambda _, **arguments: lmzoo.state.TimeBuffer.empty(**arguments),
        lambda _: {"batch_size": lambda: 1, "max_len": lambda: 2, "window": _none},
    ),
}
