"""More relatives of Llama in transformers: Ministral, Seed-OSS, CWM, IQuest-Coder, InternLM 3, Arcee, Apertus."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together, Unread, Unused, refused
from lmzoo.hf.layouts import Number
from lmzoo.hf.llama import BIASES, KEYS, KINDS, MLP_BIAS, WEIGHTS
from lmzoo.hf.names import both
from lmzoo.hf.rotary import ROPE, parameters_for, rope
from lmzoo.hf.weights import Weights
from lmzoo.hf.windows import window_keys


def _windows(config: Config) -> dict[str, Any]:
    """Returns the window, and which layers have it: all of them, unless `layer_types` names others."""
    window = config.get("sliding_window", 4096)
    words = ["full" if window is None else "rope"] * config.layers()
    if config.get("layer_types") is not None:
        words = config.words("layer_types", KINDS)
    if "rope" in words and window is None:
        raise refused("sliding_window", None, "must be given for the layers of layer_types with sliding_attention")
    return {"window": window if "rope" in words else None, "pattern": " ".join(words)}


_windows_keys = window_keys(KINDS)
MINISTRAL = Architecture(
    model_type="ministral",
    classes=("MinistralForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={**KEYS, "num_key_value_heads": To("n_kv_heads", 8)},
    together=(rope(), Together(("sliding_window", "layer_types"), _windows, _windows_keys)),
)


def _biases(config: Config) -> dict[str, Any]:
    """Returns which projections of the attention have a bias."""
    qkv, out = config.value("attention_bias", default=True), config.value("attention_out_bias", default=False)
    if out and not qkv:
        raise refused("attention_out_bias", out, "must be false without attention_bias")
    return {"attention_bias": "all" if out else "qkv" if qkv else "none"}


def _biases_keys(ours: Settings) -> dict[str, Any]:
    biases = ours["attention_bias"]
    return {"attention_bias": biases != "none", "attention_out_bias": biases == "all"}


SEED_OSS = Architecture(
    model_type="seed_oss",
    classes=("SeedOssForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", 128),
        "mlp_bias": MLP_BIAS,
        "residual_dropout": Unused(),
    },
    together=(rope(), Together(("attention_bias", "attention_out_bias"), _biases, _biases_keys)),
)

BOTH_BIASES: dict[str, Key] = {
    **KEYS,
    "attention_bias": To("attention_bias", default=False, values=BIASES),
    "mlp_bias": MLP_BIAS,
}
_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3 |= {"original_max_position_embeddings": 8192}


def _cwm(config: Config) -> dict[str, Any]:
    """Returns the window, which three of four layers have."""
    kinds = ["sliding_attention" if layer % 4 else "full_attention" for layer in range(config.layers())]
    kinds = config.get("layer_types") or kinds
    return _windows(Config({"sliding_window": 8192, **config, "layer_types": kinds}))


def _cwm_keys(ours: Settings) -> dict[str, Any]:
    return {key: value for key, value in _windows_keys(ours).items() if value is not None}


CWM = Architecture(
    model_type="cwm",
    classes=("CwmForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={**KEYS, "rms_norm_eps": To("norm_eps", 1e-5), "num_key_value_heads": To("n_kv_heads", 8)}
    | {"head_dim": To("head_dim", 128), "mlp_bias": MLP_BIAS, "attention_bias": Unread(False)},
    together=(
        rope(1e6, default={**_LLAMA3, "factor": 16.0, "rope_theta": 1e6}),
        Together(("sliding_window", "layer_types"), _cwm, _cwm_keys),
    ),
    written={"bos_token_id": 0},  # transformers does not take null
)
IQUESTCODER = Architecture(
    model_type="iquestcoder",
    classes=("IQuestCoderForCausalLM", "LlamaForCausalLM"),
    family="llama",
    weights=WEIGHTS,
    keys={
        **BOTH_BIASES,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", 128),
        "clip_qkv": Only(None),
        "use_sliding_window": Only(False),
    },
    together=(rope(),),
)
INTERNLM3 = Architecture(
    model_type="internlm3",
    classes=("InternLM3ForCausalLM", "LlamaForCausalLM"),
    family="llama",
    weights=WEIGHTS,
    keys={**IQUESTCODER.keys, "num_key_value_heads": To("n_kv_heads", 2)},
    together=(rope(),),
    aliases={"qkv_bias": "attention_bias", "bias": "mlp_bias"},
)
ARCEE_WEIGHTS: Weights = {
    **WEIGHTS,
    **both("blocks.{i}.1.inner.up", "model.layers.{i}.mlp.up_proj"),
}
ARCEE = Architecture(
    model_type="arcee",
    classes=("ArceeForCausalLM",),
    family="llama",
    weights=ARCEE_WEIGHTS,
    keys={**BOTH_BIASES, "rms_norm_eps": To("norm_eps", 1e-5), "hidden_act": Only("relu2")},
    together=(rope(),),
    fixed={"mlp": "relu2"},
)
_NORMS = ("attention_layernorm", "feedforward_layernorm")
_ACTIVATION = "model.layers.{i}.mlp.act_fn."
APERTUS = Architecture(
    model_type="apertus",
    classes=("ApertusForCausalLM",),
    family="llama",
    weights={
        **ARCEE_WEIGHTS,
        **{f"blocks.{{i}}.{n}.before.weight": f"model.layers.{{i}}.{name}.weight" for n, name in enumerate(_NORMS)},
        **{f"blocks.{{i}}.1.inner.activation.{name}": f"{_ACTIVATION}{name}" for name in ("alpha_p", "alpha_n")},
        **{f"blocks.{{i}}.1.inner.activation.{name}": Number(f"{_ACTIVATION}{name}") for name in ("beta", "eps")},
    },
    keys={
        **KEYS,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": Only("xielu"),
        "qk_norm": Unread(True),
        "post_norm": Unread(False),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
    },
    together=(rope(1.2e7, default={**_LLAMA3, "factor": 8.0, "rope_theta": 1.2e7}),),
    fixed={"mlp": "xielu", "qk_norm": True},
)


def _growing(config: Config) -> dict[str, Any]:
    """Returns the rotary positions, and the growth of the queries, which is among their parameters."""
    key = "rope_scaling" if config.table("rope_scaling") else "rope_parameters"
    if config.get(key) is None:
        config = Config({**config, key: _LONG_YARN})
    parameters = config.table(key)
    growth = parameters.value("llama_4_scaling_beta", None, float)
    if growth is None:
        raise refused(key, {**parameters}, "must have llama_4_scaling_beta")
    left = {name: value for name, value in parameters.items() if name not in ("llama_4_scaling_beta", _UNREAD)}
    found = _GROWING.settings(Config({**config, key: left}))
    kind = found["rope_scaling"].partition(" ")[0]
    if kind not in ("yarn", "llama3"):
        raise refused("rope_type", kind, "must be 'yarn' or 'llama3', which have original_max_position_embeddings")
    return {**found, "query_growth": growth}


def _growing_keys(ours: Settings) -> dict[str, Any]:
    return {"rope_parameters": {**parameters_for(ours), "llama_4_scaling_beta": ours["query_growth"]}}


_UNREAD = "max_position_embeddings"  # of the parameters
_GROWING = rope()
_LONG_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384}
_LONG_YARN |= {"mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1}
MINISTRAL3 = Architecture(
    model_type="ministral3",
    classes=("Ministral3ForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", 128),
        "sliding_window": To("window", None),
    },
    together=(Together(ROPE, _growing, _growing_keys),),
)
