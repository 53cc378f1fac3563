"""Tests that checkpoints of transformers give the same logits in lmzoo, and that wrong ones are refused in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

import lmzoo
from lmzoo.errors import CheckpointError, InputError
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.keys import WITHOUT_EFFECT
from lmzoo.hf.wrappers import WRAPPERS, unwrapped
from lmzoo.layers.experts import Experts
from tests.backbones.against_transformers import perturb, random_tokens
from tests.helpers import assert_same
from tests.hf.references import CASES, assert_same_logits, case_keys, reference, saved

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "depth": 1,
    "num_hidden_layers": 1,
    "num_heads": 2,
    "num_attention_heads": 2,
}
EVERY = [(model_type, variant) for model_type, case in CASES.items() for variant in ("", *case.variants)]


def test_load_has_a_case_for_each_architecture() -> None:
    assert CASES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize(("model_type", "variant"), EVERY)
def test_load_logits_equal_transformers(model_type: str, variant: str, tmp_path: Path) -> None:
    theirs = reference(model_type, **case_keys(model_type, variant))
    ours = lmzoo.load_model(saved(theirs, tmp_path))
    assert not ours.training
    assert ours.dtype == torch.float32
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("model_type", [kind for kind, case in CASES.items() if "expert" in str(case.keys.keys())])
def test_load_cases_reach_every_expert(model_type: str, tmp_path: Path) -> None:
    ours = lmzoo.load_model(saved(reference(model_type, **case_keys(model_type)), tmp_path))
    reached: list[int] = []
    for layer in ours.modules():
        if isinstance(layer, Experts):
            layer.register_forward_pre_hook(lambda layer, x: reached.append(len(layer.route(x[0][0])[1].unique())))
    with torch.no_grad():
        ours(random_tokens(61, 1, 48))
    assert max(reached) == ours.config.n_experts, "in no layer"


@pytest.mark.parametrize(("model_type", "variant", "switch"), [("llama", "dynamic", 16), ("phi3", "longrope", 10)])
def test_load_rotary_frequencies_depend_on_the_length(
    model_type: str, variant: str, switch: int, tmp_path: Path
) -> None:
    """Below and above the length from which they differ, and decoding on each side of it, and across it."""
    theirs = reference(model_type, **case_keys(model_type, variant))
    ours = lmzoo.load_model(saved(theirs, tmp_path))
    for length in (5, switch, switch + 1, 24):
        assert_same_logits(ours, theirs, length)
    idx_BT = random_tokens(61, 2, switch + 6)
    with torch.no_grad():
        ends = {n: ours(idx_BT[:, :n]).logits[:, -1] for n in range(1, switch + 7)}
    for lengths in ([3, *(switch + 3) * [1]], [switch - 1, 4, 1, 2], [switch + 2, 1, 2, 1], [switch, 6]):
        assert sum(lengths) == switch + 6
        state, n = ours.init_state(2), 0
        for length in lengths:
            logits_BV, state = ours.decode(idx_BT[:, n : n + length], state)
            n += length
            torch.testing.assert_close(logits_BV, ends[n], atol=1e-4, rtol=0)
        logits_BTV, state = ours.decode_all(idx_BT[:, : lengths[0]], ours.init_state(2))
        rest_BTV, state = ours.decode_all(idx_BT[:, lengths[0] :], state)
        expected = torch.stack([*ends.values()], dim=1)
        torch.testing.assert_close(torch.cat([logits_BTV, rest_BTV], dim=1), expected, atol=1e-4, rtol=0)
    assert (state["layers"] is None) == (variant == "dynamic"), "longrope has one switch, and goes on with a state"
    found = ours.generate(idx_BT[:, : switch - 2], 6, temperature=0.0)
    for n in range(switch - 2, switch + 4):
        with torch.no_grad():
            assert torch.equal(found[:, n], ours(found[:, :n]).logits[:, -1].argmax(dim=-1))


INSIDE = [(model_type, text.model_type) for model_type, each in WRAPPERS.items() for text in each.texts]


@pytest.mark.parametrize(("model_type", "text"), INSIDE)
def test_load_takes_the_language_model_of_a_multimodal_model(model_type: str, text: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoModelForImageTextToText.from_config(
        AutoConfig.for_model(model_type, text_config={**case_keys(text), "model_type": text}, vision_config=VISION),
        attn_implementation="eager",
        experts_implementation="eager",
    )
    ours = lmzoo.load_model(saved(perturb(theirs), tmp_path))  # type: ignore[arg-type]
    assert ours.family == ARCHITECTURES[text].family
    assert_same_logits(ours, theirs)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "tie_word_embeddings"}))
    assert lmzoo.load_model(tmp_path).config == ours.config, "without the key, as by default"
    known = " or ".join(inside for outside, inside in INSIDE if outside == model_type)
    for changes, error in (
        ({"vision_width": -2}, f"vision_width=-2 is not a key of {model_type} that lmzoo knows$"),
        ({"text_config": {**config["text_config"], "model_type": "llama"}}, f"'llama' of text_config must be {known}$"),
        ({"text_config": {**config["text_config"], "hidden_act": "relu", "hidden_activation": "relu"}}, "must be '"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(CheckpointError, match=error):
            lmzoo.load_model(tmp_path)


@pytest.mark.parametrize(("model_type", "text"), INSIDE)
def test_load_fills_sizes_that_a_multimodal_config_leaves_out(model_type: str, text: str) -> None:
    """Tests a config.json like the one of Gemma 3 4B: it names only sizes that differ from transformers' defaults."""

    def settings(inside: dict[str, Any]) -> dict[str, Any]:
        config, known = unwrapped(Config(model_type=model_type, text_config=inside, is_encoder_decoder=False))
        return known[text].settings(config, WITHOUT_EFFECT)

    whole = AutoConfig.for_model(model_type, text_config={"model_type": text}).to_dict()["text_config"]
    found, expected = settings({"model_type": text}), settings(whole)
    derived = {name for name, value in found.items() if value is None}  # from other sizes, by both
    assert {**found, **{name: expected[name] for name in derived}} == expected
    with pytest.raises(CheckpointError, match=r"^is_encoder_decoder=True must be None or False"):
        unwrapped(Config(model_type=model_type, is_encoder_decoder=True))


def checkpoint(folder: Path, kind: str = "llama", **changes: Any) -> dict[str, Any]:
    """Saves a checkpoint of a model type, changes its config, and returns it."""
    saved(reference(kind, **case_keys(kind)), folder)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return config


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the tensors of a checkpoint."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file)


def test_load_refuses_a_config_of_many_megabytes(tmp_path: Path) -> None:
    checkpoint(tmp_path, layer_types=[[[1]]] * 300_000)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read: it is larger than 2097152 bytes$"):
        lmzoo.load_model(tmp_path)
    assert time.process_time() - start < 0.5


def test_load_reads_shards(tmp_path: Path) -> None:
    theirs = reference("llama", **case_keys("llama"))
    saved(theirs, tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 3
    assert_same_logits(lmzoo.load_model(tmp_path), theirs)


def test_load_reads_files_of_the_hub_cache_through_links(tmp_path: Path) -> None:
    theirs = reference("llama", **case_keys("llama"))
    saved(theirs, tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(Path("../blobs") / file.name)
    assert_same_logits(lmzoo.load_model(tmp_path / "snapshot"), theirs)


def test_load_reads_gpt2_as_on_the_hub(tmp_path: Path) -> None:
    """Names without `transformer.`, the buffers of the causal mask, and a config of an old version."""
    theirs = reference("gpt2", **case_keys("gpt2"))
    config = checkpoint(tmp_path, "gpt2")
    for key in ("dtype", "transformers_version", "add_cross_attention", "tie_word_embeddings"):
        config.pop(key, None)
    config |= {"n_ctx": 32, "task_specific_params": {"text-generation": {"do_sample": True}}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def to_hub(tensors: dict[str, Tensor]) -> None:
        for name in [*tensors]:
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for i in range(3):
            tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
            tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)

    change_tensors(tmp_path, to_hub)
    assert_same_logits(lmzoo.load_model(tmp_path), theirs)


def test_load_reads_llama_as_on_the_hub(tmp_path: Path) -> None:
    """Rotary positions and dtype by their old names, and the buffers of old versions."""
    theirs = reference("llama", **case_keys("llama", "linear"))
    saved(theirs, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters["rope_theta"]
    config["rope_scaling"] = {"type": "linear", "factor": parameters["factor"]}
    config["torch_dtype"] = config.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(config))
    change_tensors(
        tmp_path, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    )
    assert_same_logits(lmzoo.load_model(tmp_path), theirs)


def test_load_reads_deepseek_v3_as_on_the_hub(tmp_path: Path) -> None:
    """With a layer for multi-token prediction behind the last one."""
    theirs = reference("deepseek_v3", **case_keys("deepseek_v3"))
    n_layers = checkpoint(tmp_path, "deepseek_v3", num_nextn_predict_layers=1)["num_hidden_layers"]
    more = {f"model.layers.{n_layers}.{name}.weight": torch.ones(32) for name in ("enorm", "eh_proj")}
    change_tensors(tmp_path, lambda tensors: tensors.update(more))
    assert_same_logits(lmzoo.load_model(tmp_path), theirs)


def test_load_takes_a_tied_head_or_none(tmp_path: Path) -> None:
    theirs = reference("llama", **case_keys("llama", "tied"))
    saved(theirs, tmp_path)
    without = lmzoo.load_model(tmp_path)
    embedding = theirs.get_input_embeddings().weight.detach().clone()
    change_tensors(tmp_path, lambda tensors: tensors.update({"lm_head.weight": embedding}))
    with_one = lmzoo.load_model(tmp_path)
    assert_same(dict(without.named_parameters()), dict(with_one.named_parameters()))
    change_tensors(tmp_path, lambda tensors: tensors.update({"lm_head.weight": embedding + 1}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight$"):
        lmzoo.load_model(tmp_path)


def test_load_takes_dtype_and_device(tmp_path: Path) -> None:
    theirs = reference("mamba2", **case_keys("mamba2"))
    saved(theirs, tmp_path)
    exact = lmzoo.load_model(tmp_path, dtype=torch.float64, device="cpu")
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.float64}
    half = lmzoo.load_model(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    wide = {name.rpartition(".")[2] for name, p in half.named_parameters() if p.dtype == torch.float32}
    assert wide == {"A_log", "dt_bias"}, "decays do not survive 16 bits"
    change_tensors(tmp_path, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    assert lmzoo.load_model(tmp_path).dtype == torch.float16


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model_type": "lama"}, r"config\.json: model_type='lama' is not one that lmzoo loads; did you mean"),
        ({"num_hidden_layers": 10**12}, r"config\.json: "),
        ({"num_hidden_layers": 2}, r"the checkpoint holds model\.layers\.2\..+ and \d+ more, which the model has no"),
        (
            {"num_hidden_layers": 4},
            r"blocks\.3\.0\.before\.weight: the checkpoint has no model\.layers\.3\.input_layer",
        ),
        ({"hidden_size": 10**12}, r"tokens\.weight has shape"),
        ({"intermediate_size": 10**15}, r"config\.json"),
        ({"vocab_size": 60}, r"tokens\.weight has shape \(61, 32\) in the checkpoint, its config asks for \(60, 32\)$"),
        ({"num_key_value_heads": 3}, r"config\.json: n_kv_heads=3 must divide n_heads=4$"),
        (
            {"attention_bias": True},
            r"blocks\.0\.0\.inner\.qkv\.bias: the checkpoint has no model\.layers\.0\.self_attn",
        ),
        ({"hidden_act": "relu"}, r"config\.json: hidden_act='relu' must be 'silu' or 'swish'"),
        ({"quantization_config": {"bits": 4}}, r"config\.json: quantization_config={'bits': 4} is not a key of llama"),
    ],
)
def test_load_refuses_a_config_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    checkpoint(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=error):
        lmzoo.load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.pop("model.norm.weight"), r"norm\.weight: the checkpoint has no model\.norm\.weight$"),
        (lambda t: t.update(extra=torch.ones(1)), r"the checkpoint holds extra, which the model has no place for$"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(31)}),
            r"norm\.weight has shape \(31,\) in the checkpoint, its config asks for \(32,\)$",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int64)}),
            r"norm\.weight is of type torch\.int64, its config asks for torch\.float32$",
        ),
        (
            lambda t: t.update({"model.layers.1.self_attn.k_proj.weight": torch.ones(8, 32)}),
            r"blocks\.1\.0\.inner\.qkv\.weight: parts of 32, 8, 16 rows must have the ratio",
        ),
    ],
)
def test_load_refuses_tensors_that_do_not_fit(tmp_path: Path, change: Any, error: str) -> None:
    checkpoint(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(CheckpointError, match=error):
        lmzoo.load_model(tmp_path)


def test_load_refuses_a_dtype_or_device_that_cannot_be(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    for dtype in ("bfloat16", torch.int8):
        with pytest.raises(InputError, match=r"^dtype=.+ must be a floating-point type of torch"):
            lmzoo.load_model(tmp_path, dtype=dtype)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^device='nothing' is not a device of this machine$"):
        lmzoo.load_model(tmp_path, device="nothing")


def test_load_keeps_weights_mapped_and_the_file_unchanged(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = lmzoo.load_model(tmp_path)
    model(random_tokens(61, 1, 5), random_tokens(61, 1, 5)).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    again = lmzoo.load_model(tmp_path)
    assert not torch.equal(model.get_parameter("norm.weight"), again.get_parameter("norm.weight"))


def test_load_runs_no_code_of_the_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    (tmp_path / "modeling.py").write_text("raise SystemExit('code of a checkpoint was run')")
    lmzoo.load_model(tmp_path)
