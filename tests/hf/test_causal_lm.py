"""Tests of models of lmzoo in transformers: saved and loaded, the loss, the arguments of forward, pipeline, Trainer."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.utils import logging

import lmzoo
from lmzoo.conformance import subject
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import CheckpointError, InputError
from lmzoo.hf import causal_lm
from lmzoo.hf.causal_lm import LmzooForCausalLM
from lmzoo.hf.causal_lm_config import LmzooConfig
from lmzoo.inference.weights import cast_weights
from lmzoo.layers.layer import Layer
from lmzoo.model import LanguageModel
from tests.helpers import TEXT, assert_same, registered_names_restored, seeded


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """The classes of lmzoo are known to transformers, which draws no progress bars."""
    lmzoo.hf.register()
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@cache
def mixtral() -> LanguageModel:
    return subject("mixtral").model()  # with an auxiliary loss


def saved(model: LanguageModel, folder: Path, **options: Any) -> Path:
    LmzooForCausalLM.of(model).save_pretrained(folder, **options)
    return folder


# Saving and loading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "granite", "mamba", "ngram"])  # tied weights, float32 weights, buffers
def test_model_saved_in_shards_loads_bitwise_equal(family: str, tmp_path: Path) -> None:
    model = subject(family).model()
    saved(model, tmp_path, max_shard_size="9KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, LmzooForCausalLM)
    assert not loaded.training
    assert_same(loaded.model.state_dict(), model.state_dict())
    assert_same(lmzoo.load_model(tmp_path).state_dict(), model.state_dict())
    idx = subject(family).tokens(2, 7)
    assert torch.equal(loaded(idx).logits, model(idx).logits)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_bytes() == (tmp_path / "config.json").read_bytes()


@pytest.mark.parametrize("family", ["granite", "ngram"])
def test_model_directory_of_lmzoo_loads_as_it_is(family: str, tmp_path: Path) -> None:
    model = subject(family).model()
    model.save(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert_same(loaded.model.state_dict(), model.state_dict())
    loaded.save_pretrained(tmp_path / "theirs")
    assert_same(lmzoo.load_model(tmp_path / "theirs").state_dict(), model.state_dict())
    assert json.loads((tmp_path / "theirs/config.json").read_text())["lmzoo"]["model"] == family
    with (tmp_path / "saved/model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its SHA-256 differs"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved")


def test_model_loads_in_another_dtype_as_load_model_does(tmp_path: Path) -> None:
    model = subject("mamba").model()
    loaded = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path), dtype=torch.bfloat16)
    expected = cast_weights(copy.deepcopy(model), torch.bfloat16)
    assert {p.dtype for p in expected.parameters()} == {torch.bfloat16, torch.float32}
    assert_same(loaded.model.state_dict(), expected.state_dict())
    loaded.save_pretrained(tmp_path / "bf16")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16")
    assert again.dtype == torch.bfloat16
    assert_same(again.model.state_dict(), expected.state_dict())


class WithTables(Layer):
    """A layer with a constant, which is not trained, and a buffer that is not saved."""

    offsets_D: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.own("factor", (d_model,), lambda w, _: w.fill_(0.5), role="constant")
        self.register_buffer("offsets_D", torch.arange(d_model) / 7, persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * self.factor + self.offsets_D


class WithTablesModel(lmzoo.MixerModel):
    """A model of somebody else."""

    config_class: ClassVar[type[lmzoo.MixerConfig]] = lmzoo.MixerConfig

    def make_mixer(self, config: lmzoo.MixerConfig, layer: int) -> nn.Module:
        return WithTables(config.d_model)


def test_model_of_a_plug_in_keeps_its_constants_and_its_unsaved_buffers(tmp_path: Path) -> None:
    with registered_names_restored():
        lmzoo.register_model("with-tables")(WithTablesModel)
        model = lmzoo.create_model("with-tables", vocab_size=13, d_model=8, n_layers=1, generator=seeded()).eval()
        loaded = AutoModelForCausalLM.from_pretrained(saved(model, tmp_path))
        drawn = AutoModelForCausalLM.from_config(loaded.config)
    idx = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded(idx).logits, model(idx).logits)
    for wrapper in (loaded, drawn):
        assert {n for n, p in wrapper.named_parameters() if not p.requires_grad} == {"model.blocks.0.0.inner.factor"}
    assert [p.std() > 0 for p in drawn.model.tokens.parameters()] == [True]  # drawn by the layer itself
    assert torch.equal(drawn.model.blocks[0][0].inner.factor, torch.full((8,), 0.5))


def test_model_with_other_tensors_is_refused(tmp_path: Path) -> None:
    file = saved(mixtral(), tmp_path) / "model.safetensors"
    tensors = load_file(file)
    for variant, has_not, lacks in (
        (None, r"the checkpoint holds model\.extra, which the model has no place for$", r"model\.norm\.weight"),
        # With other names of files, what transformers reports is refused.
        ("fp32", r"the checkpoint has no place for model\.extra$", r"does not hold model\.norm\.weight$"),
    ):
        file = tmp_path / ("model.fp32.safetensors" if variant else "model.safetensors")
        save_file({**tensors, "model.extra": torch.ones(1)}, file)
        with pytest.raises(CheckpointError, match=has_not):
            AutoModelForCausalLM.from_pretrained(tmp_path, variant=variant)
        save_file({name: tensor for name, tensor in tensors.items() if name != "model.norm.weight"}, file)
        with pytest.raises(CheckpointError, match=lacks):
            AutoModelForCausalLM.from_pretrained(tmp_path, variant=variant)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.save(tensors, tmp_path / "pytorch_model.fp16.bin")
    with pytest.raises(OSError, match="safetensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path, variant="fp16")


def test_model_of_absurd_size_is_refused_at_once(tmp_path: Path) -> None:
    file = saved(mixtral(), tmp_path) / "config.json"
    content = json.loads(file.read_text())
    content["lmzoo"]["config"]["n_layers"] = 60_000  # the largest number that configs allow is a little above
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"asks for more tensors than model\.safetensors holds$"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


# Loss -----------------------------------------------------------------------------------------------------------------


def labels_of(idx: Tensor) -> Tensor:
    """Returns labels as transformers wants them, not shifted, some of them ignored."""
    labels = idx.clone()
    labels[0, 2:4] = labels[1, -3:] = -100
    return labels


@pytest.mark.parametrize("number", [None, 7, torch.tensor(7)])
def test_loss_equals_that_of_transformers(number: Any) -> None:
    wrapper, idx = LmzooForCausalLM.of(mixtral()), subject("mixtral").tokens(2, 9)
    labels, mask = labels_of(idx), torch.ones_like(idx)
    mask[1, -3:] = 0  # padding on the right
    out = wrapper(idx, attention_mask=mask, labels=labels, num_items_in_batch=number)
    expected = ForCausalLMLoss(out.logits, labels, wrapper.config.vocab_size, num_items_in_batch=number)
    torch.testing.assert_close(out.loss, expected, rtol=1e-6, atol=1e-6)
    assert out.past_key_values is None
    past = wrapper(idx[:, :4]).past_key_values
    rest = wrapper(idx[:, 4:], labels=labels[:, 4:], past_key_values=past, num_items_in_batch=number)
    logits = out.logits[:, 4:].contiguous()
    expected = ForCausalLMLoss(logits, labels[:, 4:], wrapper.config.vocab_size, num_items_in_batch=number)
    torch.testing.assert_close(rest.loss, expected, rtol=1e-5, atol=1e-5)


def test_loss_with_padding_on_the_left_equals_that_of_the_rows() -> None:
    wrapper, rows = LmzooForCausalLM.of(mixtral()), [subject("mixtral").tokens(1, T) for T in (9, 5)]
    idx = torch.cat([nn.functional.pad(row, (9 - row.shape[1], 0), value=10**6) for row in rows])
    out = wrapper(idx, attention_mask=idx != 10**6, labels=idx.masked_fill(idx == 10**6, -100))
    each = [wrapper(row, labels=row).loss * (row.shape[1] - 1) for row in rows]
    torch.testing.assert_close(out.loss, sum(each) / 12, rtol=1e-5, atol=1e-5)
    for number, row in enumerate(rows):
        found = out.logits[number, 9 - row.shape[1] :]
        torch.testing.assert_close(found, wrapper(row).logits[0], rtol=1e-5, atol=1e-5)


def test_auxiliary_losses_take_part_in_gradients_and_not_in_the_loss() -> None:
    idx, labels = subject("mixtral").tokens(2, 9), labels_of(subject("mixtral").tokens(2, 9))
    model = copy.deepcopy(mixtral()).train()
    out = LmzooForCausalLM.of(model)(idx, labels=labels, num_items_in_batch=24)
    targets = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(out.loss, mixtral()(idx, targets).loss * 11 / 24)  # 11 of 24 labels are in this batch
    gradients = torch.autograd.grad(out.loss, [*model.parameters()])
    expected = torch.autograd.grad(model(idx, targets).loss * 11 / 24, [*model.parameters()])
    plain = torch.autograd.grad(mixtral()(idx, targets).loss * 11 / 24, [*mixtral().parameters()])
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert any((a - b).abs().max() > 1e-5 for a, b in zip(gradients, plain, strict=True))


def test_model_that_is_not_trained_by_gradients_says_so() -> None:
    wrapper, idx = LmzooForCausalLM.of(subject("ngram").model()), subject("ngram").tokens(2, 5)
    assert wrapper(idx, labels=idx).loss > 0
    with pytest.raises(InputError, match=r"ngram is not trained by gradients: lmzoo train fits it$"):
        wrapper.train()(idx, labels=idx)


# Arguments of forward -------------------------------------------------------------------------------------------------


def test_forward_keeps_the_logits_that_are_asked_for() -> None:
    wrapper, idx = LmzooForCausalLM.of(mixtral()), subject("mixtral").tokens(2, 9)
    whole = mixtral()(idx).logits.detach()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for wanted, expected in ((0, whole), (1, whole[:, -1:]), (4, whole[:, -4:]), (99, whole)):
                found = wrapper(idx, logits_to_keep=wanted).logits
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            found = wrapper(idx, logits_to_keep=torch.tensor([0, 5])).logits
            torch.testing.assert_close(found, whole[:, [0, 5]], rtol=1e-5, atol=1e-5)


def test_forward_gives_a_tuple_if_asked() -> None:
    wrapper, idx = LmzooForCausalLM.of(mixtral()), subject("mixtral").tokens(2, 9)
    loss, logits = wrapper(idx, labels=idx, return_dict=False)
    assert torch.equal(loss, wrapper(idx, labels=idx).loss)
    assert torch.equal(logits, wrapper(idx).logits)
    assert wrapper(idx, use_cache=False).past_key_values is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_attentions": True}, "output_attentions is not supported"),
        ({"inputs_embeds": torch.ones(2, 3, 4)}, "inputs_embeds is not supported"),
        ({"input_ids": None}, "input_ids must be given"),
        ({"position_ids": torch.tensor([[0, 1, 0]])}, "position_ids must count"),
        ({"attention_mask": torch.ones(2, 1, 3, 3)}, r"attention_mask has shape \(2, 1, 3, 3\)"),
        ({"input_ids": torch.tensor([[1, 2, 99]])}, "idx holds the id 99"),
    ],
)
def test_forward_refuses_what_it_cannot_honor(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LmzooForCausalLM.of(mixtral())(**{"input_ids": subject("mixtral").tokens(2, 3), **arguments})


def test_model_refuses_to_be_resized_and_to_batch_continuously() -> None:
    with pytest.raises(InputError, match="cannot be resized"):
        LmzooForCausalLM.of(mixtral()).resize_token_embeddings(20)
    with pytest.raises(InputError, match=r"^generate_batch \(continuous batching\) is not supported"):
        LmzooForCausalLM.of(mixtral()).generate_batch([[1, 2]], max_new_tokens=2)


# pipeline and Trainer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["byte", "bpe:280"])
def test_pipeline_continues_a_batch_of_prompts_as_each_alone(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(kind, [TEXT])
    model = lmzoo.create_model("retnet.tiny", vocab_size=tokenizer.vocab_size, generator=seeded()).eval()
    lmzoo.hf.export(model, tmp_path / "exported", tokenizer=tokenizer)
    pipe = pipeline("text-generation", model=str(tmp_path / "exported"))
    # Stop strings: `generate` gives `forward` their tokenizer.
    assert pipe("The 3", max_new_tokens=9, do_sample=False, stop_sequence=["a"])
    pipe.tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert pipe.tokenizer.pad_token_id == tokenizer.vocab_size  # a token that the model does not have
    prompts = ["The 3 cats sat", "The", "The 12 cats sat on 5 mats, and"]
    found = [row[0]["generated_text"] for row in pipe(prompts, batch_size=3, max_new_tokens=6, do_sample=False)]
    for prompt, text in zip(prompts, found, strict=True):
        ids = model.generate(torch.tensor([tokenizer.encode(prompt)]), 6, temperature=0.0)[0].tolist()
        assert text == tokenizer.decode(ids)


def rows_to_train_on() -> tuple[Tensor, Tensor]:
    """Returns four rows, a batch in two halves, and labels, of which each row has another number."""
    idx = subject("mixtral").tokens(4, 9)
    return idx, idx.masked_fill(torch.arange(9) < 2 * torch.arange(4)[:, None], -100)


def trained(folder: Path, steps: int, **settings: Any) -> Trainer:
    rows = [{"input_ids": row, "labels": labels} for row, labels in zip(*rows_to_train_on(), strict=True)]
    settings = {"learning_rate": 1e-2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **settings}
    settings |= {"max_steps": steps, "save_steps": 2, "logging_steps": 1, "use_cpu": True}
    arguments = TrainingArguments(str(folder), report_to="none", disable_tqdm=True, **settings)
    trainer = Trainer(LmzooForCausalLM.of(subject("mixtral").model().train()), arguments, train_dataset=rows)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if (folder / "checkpoint-2").is_dir() else None)
    return trainer


def test_trainer_lowers_the_loss_and_resumes(tmp_path: Path) -> None:
    whole = trained(tmp_path, 4)
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    idx, labels = rows_to_train_on()
    assert losses[0] == pytest.approx(LmzooForCausalLM.of(mixtral())(idx, labels=labels).loss.item(), abs=1e-5)
    assert losses[-1] < losses[0] - 0.1
    resumed = trained(tmp_path, 4)
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry][-2:] == [3, 4]
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4").state_dict(), whole.model.state_dict())


def test_trainer_shifts_labels_when_it_smooths_them(tmp_path: Path) -> None:
    smoothed = trained(tmp_path, 1, label_smoothing_factor=1e-6, learning_rate=0.0)
    plain = trained(tmp_path, 1, learning_rate=0.0)
    first, second = (trainer.state.log_history[0]["loss"] for trainer in (smoothed, plain))
    assert first == pytest.approx(second, abs=1e-4)


class Counted(nn.Module):
    """A layer that changes nothing and counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def test_activations_are_recomputed_with_the_same_gradients() -> None:
    idx, results = subject("griffin").tokens(2, 9), list[tuple[int, Tensor, list[Any]]]()
    for recomputed in (False, True):
        model, counted = subject("griffin").model().train(), Counted()
        model.blocks[0].insert(0, counted)
        wrapper = LmzooForCausalLM.of(model)
        if recomputed:
            wrapper.activation_checkpointing_enable()
        loss = wrapper(idx, labels=idx).loss
        loss.backward()
        results.append((counted.calls, loss.detach(), [p.grad for p in model.parameters()]))
    (once, plain, gradients), (twice, same, again) = results
    assert (once, twice) == (1, 2)
    assert torch.equal(plain, same)
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


def test_activations_are_checkpointed_in_all_blocks_or_not_at_all() -> None:
    with pytest.raises(InputError, match="every_n_layers=2 must be 1"):
        LmzooForCausalLM.of(mixtral()).activation_checkpointing_enable(every_n_layers=2)
    ngram = LmzooForCausalLM.of(subject("ngram").model())
    with pytest.raises(InputError, match="ngram has no blocks"):
        ngram.activation_checkpointing_enable()
    with pytest.raises(NotImplementedError, match="ngram has no embedding of tokens"):
        ngram.get_input_embeddings()
    assert LmzooForCausalLM.of(mixtral()).get_input_embeddings() is mixtral().tokens


def test_register_needs_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs the package transformers: pip install 'lmzoo\[transformers\]'$"):
        lmzoo.hf.register()


def test_register_twice_changes_nothing() -> None:
    causal_lm.register()
    assert AutoModelForCausalLM._model_mapping[LmzooConfig] is LmzooForCausalLM
    assert type(AutoConfig.for_model("lmzoo")) is LmzooConfig
