"""Tests of exported directories: transformers and lmzoo load them with the same weights and logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import lmzoo
from lmzoo import configs, registry
from lmzoo.data.tokenizers import ByteTokenizer, CharTokenizer
from lmzoo.errors import CheckpointError, ConfigError, InputError
from lmzoo.hf import export
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.fitting import differences
from lmzoo.hf.keys import WITHOUT_EFFECT
from lmzoo.inference.weights import cast_weights
from lmzoo.model import ModelConfig
from lmzoo.storage.models import tensors_of
from tests.backbones.against_transformers import perturb, random_tokens
from tests.helpers import SMALL, assert_same, seeded
from tests.hf.references import CASES, V, assert_same_logits, case_keys, reference, saved

EVERY = [(model_type, variant) for model_type, case in CASES.items() for variant in ("", *case.variants)]
# Weights that an export stores in another way than the checkpoint that was imported, with the same logits.
_HALVES = ("self_attn.q_b_proj.weight", "self_attn.kv_a_proj_with_mqa.weight")  # halves as neighbors
_DIRECT_HALVES = ("self_attn.q_proj.weight", *_HALVES)
REORDERED = {"deepseek_v3": _DIRECT_HALVES, "glm4_moe_lite": _HALVES}
UNREAD = {
    "opt": ("embed_positions.weight",),  # its first two rows
    "biogpt": ("embed_positions.weight",),
    "minimax": ("query_decay", "key_decay", "diagonal_decay"),  # buffers of the length of a chunk
}


def in_transformers(folder: Path) -> PreTrainedModel:
    """Loads a directory with transformers, in a form that also runs in float64."""
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def understood(model: PreTrainedModel) -> ModelConfig:
    """Returns the settings of lmzoo for the config that transformers has made of a config.json."""
    architecture = ARCHITECTURES[model.config.model_type]
    settings = architecture.settings(Config(model.config.to_dict()), WITHOUT_EFFECT)
    return configs.build(registry.model_class(architecture.family).config_class, settings)


@pytest.mark.parametrize(("model_type", "variant"), EVERY)
def test_export_gives_back_what_was_imported(model_type: str, variant: str, tmp_path: Path) -> None:
    theirs = reference(model_type, **case_keys(model_type, variant))
    ours = lmzoo.load_model(saved(theirs, tmp_path / "source"))
    if not ARCHITECTURES[model_type].can_be_written:
        with pytest.raises(ConfigError, match="can only be imported"):
            export(ours, tmp_path / "out", model_type=model_type)
        return
    written = export(ours, tmp_path / "out", model_type=model_type)
    assert (written.model_type, written.family, written.left_out) == (model_type, ours.family, {})
    again = in_transformers(tmp_path / "out")
    assert differences(understood(again), understood(theirs)) == []
    found = again.state_dict()
    other = (*UNREAD.get(model_type, ()), *(REORDERED.get(model_type, ()) if variant.endswith("halves") else ()))
    kept = {name: tensor for name, tensor in theirs.state_dict().items() if not name.endswith(other or ("-",))}
    assert_same(kept, {name: found[name] for name in kept})
    assert_same_logits(ours, again)


CREATED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {}, "llama"),
    ("llama", {"rope_scaling": "yarn factor=4 original=8 attention=1.3 whole=0 fast=20"}, "llama"),
    ("llama", {"attention_bias": "all", "tie_embeddings": True, "n_kv_heads": 1, "head_dim": 12}, "llama"),
    ("llama", {"window": 5, "norm_eps": 0.02}, "mistral"),
    ("llama", {"attention_bias": "qkv", "window": 5, "pattern": "rope full"}, "qwen2"),
    ("llama", {"qk_norm": True}, "qwen3"),
    ("llama", {"mlp": "relu2"}, "arcee"),
    ("llama", {"mlp": "xielu", "qk_norm": True, "head_dim": 12}, "apertus"),
    ("llama", {"query_growth": 0.5, "rope_scaling": "yarn factor=4 original=5", "window": 5}, "ministral3"),
    ("gpt_neo", {"window": 5, "activation": "gelu"}, "gpt_neo"),
    (
        "gpt_neo",
        {"pattern": "full", "n_kv_heads": 1, "attention_bias": "all", "scaled_scores": True, "tie_embeddings": False},
        "gpt_bigcode",
    ),
    (
        "gpt_neo",
        {"pattern": "full", "attention_bias": "all", "scaled_scores": True, "embedding_scale": 32**0.5},
        "biogpt",
    ),
    (
        "llama",
        {"mlp": "relu2", "norm_weight": False, "embedding_norm": True, "late_qk_norm": True, "logit_cap": 3.0},
        "nanochat",
    ),
    ("llama", {"rotary_fraction": 0.5, "attention_bias": "qkv"}, "glm"),
    ("llama", {"rotary_fraction": 0.5, "post_norms": True}, "glm4"),
    ("llama", {"pattern": "rope nope"}, "smollm3"),
    ("llama", {"late_qk_norm": True, "rope_scaling": "ntk factor=50"}, "hunyuan_v1_dense"),
    ("llama", {"rotary_fraction": 0.5}, "phi3"),
    ("lfm2", {"pattern": "conv attention", "d_ff": 40}, "lfm2"),
    ("lfm2", {"pattern": "conv attention", "feed_forward": "mlp experts", "d_expert": 12, "top_k": 3}, "lfm2_moe"),
    ("gpt2", {"activation": "relu", "dropout": 0.1, "tie_embeddings": False}, "gpt2"),
    ("alibi", {"embedding_norm": True}, "bloom"),
    ("alibi", {"bias": False, "activation": "gelu"}, "mpt"),
    ("gpt_neox", {"rotary_fraction": 0.75, "activation": "gelu_tanh", "rope_theta": 100.0}, "gpt_neox"),
    ("gpt_neox", {"parallel_residual": False, "rotary_fraction": 1.0, "n_kv_heads": 1, "window": 5}, "starcoder2"),
    ("gpt_neo", {"pattern": "full", "attention_bias": "all", "scaled_scores": True, "norm_sums": True}, "openai-gpt"),
    ("gptj", {"rotary_dim": 6, "d_ff": 40}, "gptj"),
    ("gptj", {"attention_bias": "all", "rotary_dim": 6}, "phi"),
    (
        "gptj",
        {"gated": True, "norm_bias": False, "mlp_bias": False, "head_bias": False, "qk_norm": True, "logit_scale": 1.7},
        "cohere",
    ),
    (
        "gptj",
        {"gated": True, "mlp_bias": False, "head_bias": False, "parallel": False, "rotary_dim": 4, "n_kv_heads": 1},
        "stablelm",
    ),
    (
        "gptj",
        {"activation": "relu2", "head_bias": False, "parallel": False, "rotary_dim": 6, "norm_offset": True},
        "nemotron",
    ),
    (
        "gptj",
        {
            "parallel": False,
            "head_bias": False,
            "rotary_dim": 8,
            "gated": True,
            "mlp_bias": False,
            "norm_weight": False,
            "norm_bias": False,
        },
        "olmo",
    ),
    (
        "gpt_neo",
        {
            "pattern": "full",
            "attention_bias": "all",
            "scaled_scores": True,
            "positions": "sines",
            "embedding_scale": 32**0.5,
            "activation": "relu",
        },
        "xglm",
    ),
    (
        "gptj",
        {
            "activation": "relu2",
            "head_bias": False,
            "parallel": False,
            "rotary_dim": 4,
            "attention_bias": "all",
            "shared_qk_norm": True,
        },
        "persimmon",
    ),
    ("mixtral", {"n_experts": 4, "qk_norm": "all", "normalize": False, "post_norm": True}, "flex_olmo"),
    ("olmo2", {"tie_embeddings": True, "n_kv_heads": 1}, "olmo2"),
    ("olmo2", {"pattern": "delta nope", "delta_heads": 4, "key_dim": 6, "value_dim": 10}, "olmo_hybrid"),
    ("granite", {"rope_scaling": "linear factor=3", "attention_bias": True, "attention_scale": 0.3}, "granite"),
    ("gemma3", {"pattern": "local global", "window": 5, "head_dim": 12, "query_scalar": 20.0}, "gemma3_text"),
    ("gemma3", {"qk_norm": False, "local_rope_theta": 1e6, "attention_cap": 2.0, "logit_cap": 3.0}, "gemma2"),
    ("gemma3", {"qk_norm": False, "post_norms": False, "local_rope_theta": 1e6, "logit_cap": 3.0}, "vaultgemma"),
    ("diff", {"d_ff": 40, "n_kv_heads": 1}, "diffllama"),
    ("mixtral", {"n_experts": 4, "window": 5, "head_dim": 12}, "mixtral"),
    ("mixtral", {"n_experts": 4, "qk_norm": "head", "normalize": False}, "qwen3_moe"),
    ("mixtral", {"n_experts": 4, "qk_norm": "all"}, "olmoe"),
    ("deepseek", {"rope_scaling": "yarn factor=4 original=8", "sharpness": 1.3, "q_rank": 12}, "deepseek_v3"),
    (
        "deepseek",
        {"sigmoid": False, "normalize": False, "balance_bias": False, "n_groups": 2, "top_groups": 1},
        "deepseek_v2",
    ),
    ("deepseek", {"pattern": "kda nope", "n_dense": 1, "kda_dim": 6, "d_conv": 3}, "kimi_linear"),
    ("mamba", {"d_state": 5, "dt_rank": 3, "context_length": 24}, "mamba"),
    ("mamba", {"select_eps": 0.03, "expand": 1}, "falcon_mamba"),
    ("mamba2", {"n_groups": 2, "head_dim": 16, "d_state": 12}, "mamba2"),
    ("mamba2", {"bias": True, "conv_bias": False, "dt_min": 0.01, "dt_max": 0.05}, "mamba2"),
    (
        "griffin",
        {"embed_scale": 5.65625, "pattern": "attention recurrent", "d_rnn": 24, "window": 5},
        "recurrent_gemma",
    ),
    ("qwen3_next", {"pattern": "delta attention", "feed_forward": "experts mlp", "delta_key_heads": 2}, "qwen3_next"),
    (
        "falcon_h1",
        {"ssm_norm": "after", "ssm_groups": 2, "n_kv_heads": 2, "head_dim": 6, "logit_scale": 0.5},
        "falcon_h1",
    ),
    ("nemotron_h", {"pattern": "mamba2 attention mlp", "n_layers": 3, "ssm_groups": 2, "head_dim": 5}, "nemotron_h"),
    ("nemotron_h", {"pattern": "experts attention", "d_expert": 9, "n_shared": 2, "n_kv_heads": 1}, "nemotron_h"),
    ("zamba2", {"pattern": "shared", "n_shared": 1, "adapts_attention": True, "rotates": True, "d_ff": 40}, "zamba2"),
    (
        "minimax",
        {"pattern": "lightning attention", "rotary_fraction": 1.0, "n_kv_heads": 1, "mlp_alpha": 1.5, "mlp_beta": 0.7},
        "minimax",
    ),
    ("xlstm_large", {"qk_dim": 12, "v_dim": 20, "d_ff": 41, "gate_cap": 1.5, "logit_cap": 2.0}, "xlstm"),
    ("hybrid", {"pattern": "mamba2 attention", "rotary_fraction": 0.25, "expand": 1, "ssm_head_dim": 16}, "bamba"),
    (
        "hybrid",
        {"pattern": "mamba+experts nope", "n_experts": 4, "select_norm": True, "normalize": False, "norm_eps": 1e-6},
        "jamba",
    ),
    ("mixtral", {"sinks": True, "clamp": 2.0, "n_experts": 4, "pattern": "rope full", "window": 5}, "gpt_oss"),
    ("mixtral", {"qk_norm": "head", "n_experts": 4, "pattern": "local full", "window": 5}, "mellum"),
    ("mixtral", {"attention_bias": "qkv", "d_shared": 12, "normalize": False, "n_experts": 4}, "qwen2_moe"),
    ("granite", {"n_experts": 4, "top_k": 3}, "granitemoe"),
    ("granite", {"n_experts": 4, "d_shared": 12, "d_ff": 20}, "granitemoeshared"),
    ("granite", {"pattern": "mamba2 nope", "n_experts": 4, "d_shared": 12, "ssm_groups": 2}, "granitemoehybrid"),
    (
        "granite",
        {"pattern": "latent", "attention_scale": 0.2, "q_rank": 12, "logit_divisor": 2.0, "nope_dim": 9, "v_dim": 7},
        "minicpm3",
    ),
    ("granite", {"post_norms": True, "attention_scale": 0.3, "logit_divisor": 3.0}, "hyperclovax"),
    ("olmo2", {"pattern": "local rope", "window": 5, "rope_scaling": "linear factor=3"}, "olmo3"),
    ("olmo2", {"pattern": "window nope", "window": 5, "qk_norm": "head"}, "exaone4"),
    (
        "gptj",
        {
            "gated": True,
            "norm_bias": False,
            "mlp_bias": False,
            "head_bias": False,
            "pattern": "window nope",
            "window": 5,
        },
        "cohere2",
    ),
    ("gptj", {"activation": "gelu", "mlp_bias": False, "head_bias": False, "n_kv_heads": 2}, "falcon"),
    ("gptj", {"activation": "relu2", "attention_bias": "all", "head_bias": False, "parallel": False}, "falcon"),
    ("deepseek", {"pattern": "grouped", "sigmoid": False, "n_kv_heads": 2, "n_shared": 2}, "ernie4_5_moe"),
    ("deepseek", {"pattern": "grouped", "n_kv_heads": 2, "rotary_fraction": 0.5, "routed_scale": 2.0}, "glm4_moe"),
    ("deepseek", {"pattern": "grouped", "qk_norm": "head", "attention_bias": "all", "head_dim": 12}, "dots1"),
    (
        "deepseek",
        {
            "pattern": "grouped",
            "qk_norm": "late",
            "sigmoid": False,
            "balance_bias": False,
            "n_dense": 0,
            "rope_scaling": "ntk factor=50",
        },
        "hunyuan_v1_moe",
    ),
    ("deepseek", {"pattern": "window grouped_nope", "window": 5, "qk_norm": "head", "top_k": 3}, "exaone_moe"),
    (
        "deepseek",
        {"pattern": "window grouped_nope", "window": 5, "qk_norm": "head", "sinks": True, "balance_bias": False},
        "flint",
    ),
    (
        "deepseek",
        {
            "pattern": "window grouped_nope",
            "window": 5,
            "qk_norm": "head",
            "post_norms": True,
            "by_logit": True,
            "n_dense": 0,
        },
        "kolibri1",
    ),
    (
        "deepseek",
        {
            "pattern": "window grouped_nope",
            "window": 5,
            "qk_norm": "head",
            "post_norms": True,
            "gate": True,
            "embedding_scale": 32**0.5,
        },
        "afmoe",
    ),
    ("deepseek", {"pattern": "grouped", "qk_norm": "all", "n_dense": 0, "n_shared": 0, "head_dim": 12}, "minimax_m2"),
]


@pytest.mark.parametrize(("family", "settings", "model_type"), CREATED)
def test_export_of_a_created_model(family: str, settings: dict[str, Any], model_type: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": V, "d_model": 32, "n_layers": 2, "context_length": 16}
    model = perturb(lmzoo.create_model(family, generator=seeded(), **(sizes | settings)))
    for name, buffer in model.named_buffers():
        if name.endswith("choice_bias"):
            buffer.normal_(std=0.3, generator=seeded())
    assert isinstance(model, lmzoo.LanguageModel)
    tokenizer = None if model_type == "qwen2" else CharTokenizer(map(chr, range(65, 65 + V)))
    assert export(model, tmp_path / "out", tokenizer=tokenizer).model_type == model_type
    if tokenizer is not None:  # transformers has a class for the tokenizers of some model types
        text = "Az^bCD"
        assert AutoTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"] == tokenizer.encode(text)
    loaded = lmzoo.load_model(tmp_path / "out")
    assert differences(loaded.config, model.config) in ([], ["dropout"])
    idx = random_tokens(V, 2, 16)
    with torch.no_grad():
        assert torch.equal(loaded(idx).logits, model(idx).logits)
    assert_same_logits(model, in_transformers(tmp_path / "out"), 16)


def test_export_has_a_created_model_of_each_architecture_that_can_be_written() -> None:
    first = {"ministral", "seed_oss", "opt", "qwen3_5_text"}  # another type has the same settings and comes first
    first |= {"cwm", "codegen", "ernie4_5", "solar_open", "hy_v3"}
    first |= {"gemma", "glm4_moe_lite", "helium", "internlm3", "iquestcoder", "jais2", "qwen3_5_moe_text", "youtu"}
    written = {name for name, each in ARCHITECTURES.items() if each.can_be_written}
    assert written == {model_type for _, _, model_type in CREATED} | first


@pytest.mark.parametrize("family", sorted(registry.families()))
def test_export_in_own_form_loads_with_the_same_logits(family: str, tmp_path: Path) -> None:
    model = small(family)
    written = export(model, tmp_path / "out", model_type="lmzoo")
    assert (written.model_type, written.files) == ("lmzoo", ("README.md", "config.json", "model.safetensors"))
    loaded = lmzoo.load_model(tmp_path / "out")
    assert (loaded.family, loaded.config) == (family, model.config)
    assert_same(tensors_of(model), tensors_of(loaded))
    idx = random_tokens(256, 2, 8)
    with torch.no_grad():
        assert torch.equal(loaded(idx).logits, model(idx).logits)


def small(family: str = "llama", **settings: Any) -> lmzoo.LanguageModel:
    """Returns a small model of any family, which need not have all of the sizes."""
    names = configs.types_of(registry.model_class(family).config_class)
    sizes = {name: value for name, value in {**SMALL, "d_model": 32}.items() if name in names}
    return lmzoo.create_model(family, vocab_size=256, generator=seeded(), **(sizes | settings)).eval()


def test_export_divides_weights_into_files(tmp_path: Path) -> None:
    model = small()
    perturb(model)
    written = export(model, tmp_path / "out", shard_bytes=10_000)
    shards = [name for name in written.files if name.endswith(".safetensors")]
    assert shards == [f"model-0000{n}-of-0000{len(shards)}.safetensors" for n in range(1, len(shards) + 1)]
    assert len(shards) > 2
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert {*index["weight_map"].values()} == {*shards}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors_of(model).values())
    for name in shards:
        sizes = [tensor.nbytes for tensor in load_file(tmp_path / "out" / name).values()]
        assert len(sizes) == 1 or sum(sizes) <= 10_000
    assert_same(tensors_of(model), tensors_of(lmzoo.load_model(tmp_path / "out")))
    assert_same_logits(model, in_transformers(tmp_path / "out"), 16)


def test_export_keeps_the_dtype(tmp_path: Path) -> None:
    model = cast_weights(small("mamba2"), torch.bfloat16)
    written = export(model, tmp_path / "out")
    assert (written.dtype, AutoConfig.from_pretrained(tmp_path / "out").dtype) == ("bfloat16", torch.bfloat16)
    loaded = lmzoo.load_model(tmp_path / "out")
    assert loaded.get_parameter("blocks.0.inner.A_log").dtype == torch.float32, "16 bits are too few for decays"
    assert_same(tensors_of(model), tensors_of(loaded))
    assert in_transformers(tmp_path / "out").dtype == torch.bfloat16
    own = export(model, tmp_path / "own", model_type="lmzoo")
    assert own.dtype == "bfloat16"
    assert_same(tensors_of(model), tensors_of(lmzoo.load_model(tmp_path / "own")))


def test_export_has_no_special_tokens_that_would_end_a_text(tmp_path: Path) -> None:
    """Llama's config of transformers ends a text at the id 2 unless config.json says otherwise."""
    export(small(), tmp_path / "out", tokenizer=ByteTokenizer())
    theirs = in_transformers(tmp_path / "out")
    for config in (theirs.config, theirs.generation_config):
        assert (config.eos_token_id, config.bos_token_id) == (None, None)
    ids = theirs.generate(torch.tensor([[65, 66]]), max_new_tokens=6, do_sample=False)
    assert ids.shape == (1, 8)


def test_export_refuses_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(small(), tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for place in ("empty", "file"):
        with pytest.raises(CheckpointError, match=r"exists and is no empty directory: it is left as it is$"):
            export(small(), tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_export_writes_nothing_for_a_model_that_its_config_does_not_describe(tmp_path: Path) -> None:
    for model_type in (None, "lmzoo"):
        model = small("gpt2")
        model.get_submodule("blocks.0").activation = nn.functional.relu
        with pytest.raises(CheckpointError, match=r"out/config\.json: the logits of the loaded model differ by"):
            export(model, tmp_path / "out", model_type=model_type)
        assert not [*tmp_path.iterdir()]


def test_export_names_what_it_cannot_use(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"^gate=True: no model type"):
        export(small(gate=True), place)
    with pytest.raises(
        InputError, match=r"^<tokenizer byte, 256 tokens> is not a tokenizer for a model with vocab_size=7"
    ):
        export(lmzoo.create_model("llama", vocab_size=7, **SMALL), place, tokenizer=ByteTokenizer())
    with pytest.raises(InputError, match=r"^'byte' is not a tokenizer for a model with vocab_size=256$"):
        export(small(), place, tokenizer="byte")  # type: ignore[arg-type]
    for bad, message in (
        ({"shard_bytes": 0}, "shard_bytes=0 must be a positive integer"),
        ({"shard_bytes": "5"}, "shard_bytes='5' must be a positive integer"),
        ({"model_type": 3}, "model_type=3 must be a text"),
        ({"license": ["mit"]}, r"license=\['mit'\] must be a text"),
        ({"model": "llama"}, "model=str must be a LanguageModel"),
    ):
        with pytest.raises(InputError, match=f"^{message}$"):
            export(**{"model": small(), "path": place, **bad})  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


def test_export_reports_its_progress(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    model = small()
    export(model, tmp_path / "out", progress=lambda *call: calls.append(call))
    total = sum(tensor.nbytes for tensor in tensors_of(model).values())
    assert {what for what, _, _ in calls} == {"writing", "checking"}
    for what in ("writing", "checking"):
        done = [each for name, each, _ in calls if name == what]
        assert done == sorted(done)
        assert done[-1] == total
