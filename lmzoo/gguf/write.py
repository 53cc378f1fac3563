"""Writes a model as a GGUF file, by the package `gguf`: metadata, tensors, tokenizer.

Everything is checked before the file is begun: that an architecture of GGUF can hold the model, and that each of its
tensors has a place in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmzoo import arguments, configs
from lmzoo.data.tokenizers import Tokenizer
from lmzoo.errors import CheckpointError, ConfigError, InputError
from lmzoo.gguf.form import ALWAYS_FREE, Form, Settings
from lmzoo.gguf.forms import FORMS
from lmzoo.gguf.tokenizer import add_tokenizer
from lmzoo.hf.weights import MissingTensorError, Reader, check_used
from lmzoo.layers.rope_scaling import NTK, Linear, Llama3, LongRope, Yarn, parse_rope_scaling
from lmzoo.model import LanguageModel
from lmzoo.storage import atomic
from lmzoo.storage.models import tensors_of

if TYPE_CHECKING:
    from gguf import GGUFWriter

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Weights that stay in float32 beside those with one axis, as llama.cpp's converter keeps them.
_WIDE = (
    "_norm.",
    "norm.",
    "ffn_gate_inp",
    "shortconv.conv.",
    "position_embd.",
    "ssm_conv1d.",
    "lerp",
    "time_mix_w",
)
_LIMIT = 1 << 32  # of whole numbers
# Keys with whole numbers as values that are real numbers nevertheless.
_REAL = ("rope.freq_base", "scale", "softcapping", "epsilon", "bias")


class Written(NamedTuple):
    """The architecture of a written file, its number of tensors, and the kind of its tokenizer, None for none."""

    arch: str
    tensors: int
    tokenizer: str | None


def write_gguf(
    model: LanguageModel, path: str | Path, tokenizer: Tokenizer | None = None, *, dtype: str | None = None
) -> Written:
    """Writes a model as a GGUF file, which must not exist yet.

    `dtype` of the matrices is float32, float16 or bfloat16, by default that of the model. Raises `CheckpointError`,
    with nothing written, for a model that no architecture of GGUF can hold.
    """
    path = arguments.path("path", path)
    if not isinstance(model, LanguageModel):
        raise InputError(f"model={type(model).__name__} must be a LanguageModel")
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise InputError(f"tokenizer={tokenizer!r} must be a tokenizer: lmzoo.load_tokenizer(path)")
    if os.path.lexists(path):
        raise CheckpointError(f"{path}: exists: it is left as it is")
    named = {value: name for name, value in DTYPES.items()}
    wanted = dtype or named.get(model.dtype, "float32")
    if wanted not in [*DTYPES]:  # a list takes any value, also one without a hash
        raise CheckpointError(f"dtype={wanted!r} must be one of {', '.join(DTYPES)}")
    writer_class = _library()
    settings = settings_of(model)
    form = form_of(model.family, settings, defaults_of(model))
    tensors = converted(model, form, settings)
    writer = writer_class(None, form.arch)
    _add_keys(writer, form, settings, wanted)
    kind = add_tokenizer(writer, tokenizer, settings["vocab_size"])
    for name, tensor in tensors.items():
        _add_tensor(writer, name, tensor, wanted)
    with atomic.filled_file(path) as temporary:
        writer.write_header_to_file(temporary)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Written(form.arch, len(tensors), kind)


def _library() -> type[GGUFWriter]:
    try:
        from gguf import GGUFWriter
    except ImportError:
        raise CheckpointError("GGUF files need the package gguf: pip install 'lmzoo[gguf]'") from None
    return GGUFWriter


def settings_of(model: LanguageModel) -> dict[str, Any]:
    """Returns the settings of a model, with those that GGUF names and lmzoo computes."""
    settings = configs.to_dict(model.config)
    if "n_heads" in settings:
        if settings.get("n_kv_heads") is None:
            settings["n_kv_heads"] = settings["n_heads"]
        if settings.get("head_dim") is None:
            settings["head_dim"] = settings["d_model"] // settings["n_heads"]
        settings.setdefault("rotary_dim", int(settings.get("rotary_fraction", 1.0) * settings["head_dim"]))
    if "kda_heads" in settings:
        settings["kda_inner"] = settings["kda_heads"] * settings["kda_dim"]
    if "ssm_groups" in settings:
        settings["d_maps"] = settings["ssm_groups"] * settings["d_state"]
    if "expand" in settings:
        settings["inner"] = settings["expand"] * settings["d_model"]
        settings["select_norms"] = settings.get("select_eps") is not None
        if "head_dim" in settings:
            settings["state_heads"] = settings["inner"] // settings["head_dim"]
    return settings


def defaults_of(model: LanguageModel) -> dict[str, Any]:
    """Returns the settings of a model of the same sizes whose other settings are the defaults, computed or not."""
    config = model.config
    sizes = {name: value for name, value in configs.to_dict(config).items() if name in ALWAYS_FREE}
    try:
        return configs.to_dict(type(config)(**sizes))
    except ConfigError:  # the defaults do not go with these sizes
        return {field.name: field.default for field in fields(config) if field.default is not MISSING}


def form_of(family: str, settings: Settings, defaults: Settings) -> Form:
    """Returns the architecture of GGUF for a model. Raises `CheckpointError` naming the settings that do not fit.

    A setting that a form says nothing about must have its default, so that a new one is refused and not left out.
    """
    reasons: list[tuple[int, str]] = []
    for form in (form for form in FORMS if form.family == family):
        unmet = [
            f"{name}={settings[name]!r} must be {' or '.join(map(repr, values))}"
            for name, values in form.needs.items()
            if settings[name] not in values
        ]
        known = {*ALWAYS_FREE, *form.needs, *form.free, *(key for key in form.keys.values() if isinstance(key, str))}
        unmet += [
            f"{name}={settings[name]!r} must be {default!r}"
            for name, default in defaults.items()
            if name not in known and settings[name] != default
        ]
        rest = () if unmet else (form.rule(settings) if form.rule else None, _rope_rule(form, settings))
        broken = [*unmet, *(found for found in rest if found is not None)]
        if not broken:
            return form
        reasons.append((len(unmet), f"as {form.arch}, {broken[0]}"))
    if not reasons:
        families = ", ".join(sorted({form.family for form in FORMS}))
        raise CheckpointError(f"{family} has no architecture in GGUF; these families have one: {families}")
    raise CheckpointError(f"GGUF has no form of this {family} model: {min(reasons)[1]}")


def _rope_rule(form: Form, settings: Settings) -> str | None:
    text = settings.get("rope_scaling", "none")
    kind = text.split()[0]
    if kind != "none" and kind not in form.rope:
        return f"rope_scaling={text!r} must be {' or '.join(('none', *form.rope))}"
    rule = parse_rope_scaling(text)
    if isinstance(rule, Yarn) and (rule.attention is not None or not rule.whole):
        usual = Yarn(rule.factor, rule.original).magnitude
        if not rule.whole or abs(rule.magnitude - usual) > 1e-6:
            return f"rope_scaling={text!r} must have the usual attention={usual:.6g} and whole=1"
    return None


def converted(model: LanguageModel, form: Form, settings: Settings) -> dict[str, Tensor]:
    """Returns the tensors of the file by their names. Raises `CheckpointError` for one that has no place there."""
    ours = {name: tensor.detach().cpu() for name, tensor in tensors_of(model).items()}
    if form.output:
        ours.setdefault("head.weight", ours["tokens.weight"])
    read = Reader(ours, settings)
    found: dict[str, Tensor] = {}
    for template, source in form.tensors.items():
        for i in range(settings["n_layers"]) if "{i}" in template else (0,):
            try:
                found[template.format(i=i)] = read(source, i=i)
            except MissingTensorError:  # a bias, or a head that is the token embedding
                continue
    check_used(ours, read.used)
    rule = parse_rope_scaling(settings.get("rope_scaling", "none"))
    if isinstance(rule, (Llama3, NTK)):
        pairs_K = torch.arange(0, settings["rotary_dim"], 2, dtype=torch.float64) / settings["rotary_dim"]
        frequency_K = settings["rope_theta"] ** -pairs_K
        found["rope_freqs.weight"] = (frequency_K / rule.scaled(frequency_K, settings["rope_theta"])).float()
    if isinstance(rule, LongRope):
        found |= {f"rope_factors_{name}.weight": torch.tensor(getattr(rule, name)) for name in ("long", "short")}
    return found


def _add_keys(writer: GGUFWriter, form: Form, settings: Settings, dtype: str) -> None:
    """Writes the metadata: sizes, norms, positions."""
    from gguf import LlamaFileType, RopeScalingType

    kinds = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}
    writer.add_file_type(LlamaFileType[kinds[dtype]])
    for key, value in _values({**form.keys, form.norm: "norm_eps"}, settings):
        name = f"{form.arch}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float) or key.endswith(_REAL):
            writer.add_float32(name, float(value))
        elif not 0 <= value < _LIMIT:
            raise CheckpointError(f"{key}={value} must be below 2^32 in a GGUF file")
        else:
            writer.add_uint32(name, value)
    rule = parse_rope_scaling(settings.get("rope_scaling", "none"))
    if isinstance(rule, (Linear, Yarn)):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if isinstance(rule, Linear) else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rule.factor)
    if isinstance(rule, (Yarn, LongRope)):
        writer.add_rope_scaling_orig_ctx_len(int(rule.original))
    if isinstance(rule, LongRope):
        writer.add_rope_scaling_attn_factors(rule.magnitude)
    if isinstance(rule, Yarn):
        writer.add_rope_scaling_yarn_beta_fast(rule.fast)
        writer.add_rope_scaling_yarn_beta_slow(rule.slow)


def _values(keys: Mapping[str, Any], settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yields the keys with their values, but for settings that are None."""
    for key, source in keys.items():
        value = source(settings) if callable(source) else settings[source] if isinstance(source, str) else source
        if value is not None:
            yield key, value


def _add_tensor(writer: GGUFWriter, name: str, tensor: Tensor, dtype: str) -> None:
    from gguf import GGMLQuantizationType, quants

    wide = tensor.ndim < 2 or not name.endswith(".weight") or any(part in name for part in _WIDE)
    kind = torch.float32 if wide else DTYPES[dtype]
    array: np.ndarray
    if kind == torch.bfloat16:  # numpy has no such type
        array = quants.quantize(tensor.float().contiguous().numpy(), GGMLQuantizationType.BF16)
        writer.add_tensor(name, array, raw_dtype=GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, tensor.to(kind).contiguous().numpy())
