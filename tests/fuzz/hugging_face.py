"""Cases of Hugging Face checkpoints: a changed config, header, index or tokenizer."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import lmzoo
from tests.fuzz import values
from tests.fuzz.watch import Case, Place

MODEL_TYPES = ("gpt2", "llama", "mixtral", "gemma3_text", "deepseek_v3", "smollm3", "mpt", "mamba2")
SHARDED = "mistral"  # in several files, with an index
SECONDS = 4  # twice the limit, because the machine may be busy
KEYS = (
    "layer_types",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "head_dim",
    "model_type",
    "quantization_config",
)


def prepare(base: Path) -> None:
    """Write the checkpoints that cases start from; imports transformers."""
    from tests.data.test_pretrained import KINDS
    from tests.hf.references import case_keys, reference, saved

    for model_type in MODEL_TYPES:
        saved(reference(model_type, **case_keys(model_type)), base / "hf" / model_type)
    saved(reference(SHARDED, **case_keys(SHARDED)), base / "hf" / SHARDED, max_shard_size="20KB")
    for kind, make in KINDS.items():
        make().save(str(base / "hf" / f"{kind}.json"))


def case(draw: random.Random, place: Place) -> Case:
    """Draws a checkpoint and one change of it, or a changed tokenizer."""
    change = draw.choice((_key, _key, _key, _config, _header, _header, _tensors, _index, _tokenizer))
    if change is _tokenizer:
        return _tokenizer(draw, place)
    folder = place.work / "model"
    shutil.copytree(place.base / "hf" / (SHARDED if change is _index else draw.choice(MODEL_TYPES)), folder)
    what = change(draw, folder)
    return Case(f"load_model of {folder.name} with {what}", lambda: lmzoo.load_model(folder), SECONDS)


def _json(draw: random.Random, depth: int = 0) -> Any:
    """Draws a JSON value."""
    kind = draw.random()
    if kind < 0.5:
        return values.number(draw)
    if kind < 0.7:
        return values.text(draw, encodable=True)
    if kind < 0.8 or depth > 2:
        return None
    if kind < 0.9:
        return [_json(draw, depth + 1) for _ in range(draw.choice((0, 1, 3)))]
    return {draw.choice(("rope_type", "factor", "full_attention", "a")): _json(draw, depth + 1)}


def _key(draw: random.Random, folder: Path) -> str:
    """Changes a key of the config, or a key of an object in it; or removes it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    table = config
    key = draw.choice([*config, *KEYS])
    if isinstance(config.get(key), dict) and config[key] and draw.random() < 0.7:
        table = config[key]
        key = draw.choice([*table])
    if draw.random() < 0.1:
        table.pop(key, None)
        file.write_text(json.dumps(config))
        return f"no {key}"
    table[key] = _json(draw)
    file.write_text(json.dumps(config))
    return f"{key}={str(table[key])[:80]!r}"


def _config(draw: random.Random, folder: Path) -> str:
    """Damages the bytes of the config."""
    file = folder / "config.json"
    file.write_bytes(values.damaged(draw, file.read_bytes()))
    return f"config.json {file.read_bytes()[:60]!r}"


def _header(draw: random.Random, folder: Path) -> str:
    """Changes the header of the weights: a name, a dtype, a shape or an offset, or any byte."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text, body = content[8 : 8 + length], content[8 + length :]
    if draw.random() < 0.3:
        text = values.damaged(draw, text)
    else:
        header = json.loads(text)
        name = draw.choice([*header])
        if draw.random() < 0.3:
            header[values.text(draw, encodable=True)] = header.pop(name)
        elif isinstance(header[name], dict):
            header[name][draw.choice(("dtype", "shape", "data_offsets"))] = draw.choice(
                (_json(draw), [_json(draw), 2], "I64", "BOOL", "F16", "F8_E4M3")
            )
        text = json.dumps(header).encode()
    size = draw.choice((len(text), len(text), len(text), 0, 1 << 40, (1 << 64) - 1, length))
    file.write_bytes(struct.pack("<Q", size) + text + body)
    return f"a header of {size} bytes: {text[:80]!r}"


def _tensors(draw: random.Random, folder: Path) -> str:
    """Damages any byte of the weights, or cuts them off."""
    file = folder / "model.safetensors"
    file.write_bytes(values.damaged(draw, file.read_bytes()))
    return f"{file.stat().st_size} bytes of weights"


def _index(draw: random.Random, folder: Path) -> str:
    """Changes the index of the shards, or a shard."""
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    kind = draw.randrange(4)
    if kind == 0:
        file.write_bytes(values.damaged(draw, file.read_bytes()))
        return "damaged index"
    if kind == 1:
        shard = draw.choice(sorted(folder.glob("*.safetensors")))
        shard.write_bytes(values.damaged(draw, shard.read_bytes()))
        return f"damaged {shard.name}"
    name = draw.choice([*index["weight_map"]])
    index["weight_map"][name] = draw.choice(("../model", "/etc/passwd", "pipe.txt", _json(draw), "config.json"))
    if kind == 2:
        index["weight_map"] = draw.choice(([], {}, None, index["weight_map"]))
    file.write_text(json.dumps(index))
    return f"index of {name}: {str(index['weight_map'])[:60]!r}"


def _tokenizer(draw: random.Random, place: Place) -> Case:
    """Changes a tokenizer.json, and encodes and decodes a text with it."""
    source = draw.choice(sorted((place.base / "hf").glob("*.json")))
    content = json.loads(source.read_text())
    file = place.work / "tokenizer.json"
    if draw.random() < 0.5:
        file.write_bytes(values.damaged(draw, source.read_bytes()))
    else:
        content[draw.choice([*content])] = _json(draw)
        if draw.random() < 0.3 and isinstance(content["model"], dict):
            content["model"][draw.choice([*content["model"]])] = _json(draw)
        file.write_text(json.dumps(content))

    def work() -> None:
        tokenizer = lmzoo.load_tokenizer(file)
        tokenizer.decode(tokenizer.encode("1 sheep 中"))

    return Case(f"load_tokenizer of {source.stem} changed to {file.read_bytes()[:120]!r}", work, SECONDS)
