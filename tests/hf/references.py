"""Tiny random checkpoints of transformers, made from `tests.hf.cases`, and their logits compared with lmzoo's."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads: the references are built from small configurations

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

import lmzoo
from tests.backbones.against_transformers import perturb, random_tokens
from tests.hf.cases import CASES
from tests.hf.cases.case import LLAMA as LLAMA
from tests.hf.cases.case import V as V
from tests.hf.cases.llama import GEMMA as GEMMA

logging.disable_progress_bar()
logging.set_verbosity_error()
T = 24
NOISE = 30.0  # our difference from transformers, in units of its own rounding error


def reference(model_type: str, **keys: Any) -> PreTrainedModel:
    """Returns a perturbed model of transformers with these keys in its config."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **deepcopy(keys))  # transformers adds keys to rope_parameters
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}  # the others take no float64
    model = AutoModelForCausalLM.from_config(config, **options)
    perturb(model)
    for name, bias in (*model.named_buffers(), *model.named_parameters()):
        if name.endswith(("e_score_correction_bias", "expert_bias")):  # small, so that every expert is reached
            bias.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    return model


def case_keys(model_type: str, variant: str = "") -> dict[str, Any]:
    """Returns the keys of a case, changed by one of its variants."""
    case = CASES[model_type]
    return {**case.keys, **(case.variants[variant] if variant else {})}


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Saves a model of transformers, and returns the folder."""
    model.save_pretrained(folder, **options)
    return folder


@torch.no_grad()
def logits_of(model: PreTrainedModel, idx_BT: Tensor) -> Tensor:
    """Returns the logits of a full forward pass with explicit positions."""
    known = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
    if "position_ids" in known:
        options["position_ids"] = torch.arange(idx_BT.shape[1])[None].expand(len(idx_BT), -1)
    return model(idx_BT, **options).logits


def exact_logits(model: PreTrainedModel, idx_BT: Tensor) -> Tensor:
    """Returns the logits in float64. XGLM makes a mask of torch's default dtype, and fails if it is another one."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if model.config.model_type == "xglm" else default)
    try:
        return logits_of(model.double(), idx_BT)
    finally:
        torch.set_default_dtype(default)
        model.float()


@torch.no_grad()
def assert_same_logits(ours: lmzoo.LanguageModel, theirs: PreTrainedModel, length: int = T) -> None:
    """Compares logits in float32, in units of the rounding error of the reference: its difference from float64."""
    idx_BT = random_tokens(ours.config.vocab_size, 2, length)
    expected = logits_of(theirs, idx_BT)
    exact = exact_logits(theirs, idx_BT)
    assert expected.std() > 0.3, "the weights must make the logits differ"
    noise = (expected - exact).abs().max().item() + 1e-7 * exact.abs().max().item()
    difference = (ours(idx_BT).logits - exact).abs().max().item()
    assert difference < NOISE * noise, f"the logits differ by {difference / noise:.3g} times the rounding error"
