"""Any model of lmzoo as a model of transformers: `generate`, `pipeline` and `Trainer` work with it, for every family.

The classes wrap a `LanguageModel`; `lmzoo.hf.own` says how it is saved. No code of a checkpoint is run.
Legend: B rows, T new columns (tokens or padding), L all columns, K last columns, V vocabulary.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple

from lmzoo import registry
from lmzoo.errors import CheckpointError, InputError
from lmzoo.hf.causal_lm_config import LmzooConfig
from lmzoo.hf.decoding_cache import DecodingCache
from lmzoo.hf.load import CONFIG_FILE, check_own, kept_wide
from lmzoo.hf.own import MODEL_TYPE, PREFIX, own_config
from lmzoo.hf.padding import at, check_positions, new_mask, next_labels, padding_last
from lmzoo.inference.weights import cast_weights
from lmzoo.layers.stack import outermost_stacks
from lmzoo.losses import IGNORE_INDEX, cross_entropy
from lmzoo.model import LanguageModel
from lmzoo.storage import models, reading


class LmzooForCausalLM(PreTrainedModel, GenerationMixin):
    """A `LanguageModel`, `model`, with the methods of a causal language model of transformers."""

    config_class = LmzooConfig
    base_model_prefix = PREFIX.removesuffix(".")
    main_input_name = "input_ids"
    accepts_loss_kwargs = True  # so that the Trainer gives num_items_in_batch
    supports_gradient_checkpointing = True

    def __init__(self, config: LmzooConfig) -> None:
        super().__init__(config)
        family, settings = config.model_class_and_settings()
        self.model: LanguageModel = registry.blank_model(family, settings)
        self._no_split_modules = [family.__name__]  # for device_map: a model lies on one device
        self._keep_in_fp32_modules_strict = [f"^{re.escape(PREFIX + name)}$" for name in kept_wide(self.model)]
        self._constants = [name for name, p in self.model.named_parameters() if not p.requires_grad]
        self.post_init()

    @classmethod
    def of(cls, model: LanguageModel, **keys: Any) -> Self:
        """Wraps a model, which is not copied; `keys` are more keys of the config, such as `eos_token_id`."""
        with torch.device("meta"):
            wrapper = cls(LmzooConfig(**{**own_config(model), **keys}))
        wrapper.model = model
        return wrapper.train(model.training)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *arguments: Any,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """Loads a checkpoint as transformers does, but never a pickle, and a directory after all checks of lmzoo.

        Raises `CheckpointError` for a tensor that is missing or left over, which transformers only reports.
        """
        folder = Path(str(pretrained_model_name_or_path), options.get("subfolder") or "")
        if os.path.lexists(folder / reading.MANIFEST):
            models.check_saved(folder)
        elif (folder / CONFIG_FILE).is_file() and not options.get("variant"):  # which has other names of files
            check_own(folder)
        options = {**options, "use_safetensors": True, "output_loading_info": True}
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *arguments, **options)
        model, info = loaded
        for found, what in ((info["missing_keys"], "does not hold"), (info["unexpected_keys"], "has no place for")):
            if found:
                raise CheckpointError(f"{model.name_or_path}: the checkpoint {what} {min(found)}")
        model._restore()
        return loaded if output_loading_info else model

    def _restore(self) -> None:
        """Restores what loading loses: which parameters are constants, and buffers that no checkpoint holds."""
        for name in self._constants:
            self.model.get_parameter(name).requires_grad_(False)
        names = [name.removeprefix(PREFIX) for name, _ in self.named_non_persistent_buffers()]
        if names:
            fresh = cast_weights(registry.blank_model(type(self.model), self.model.config), self.model.dtype)
            for name in names:
                buffer = self.model.get_buffer(name)
                buffer.data = fresh.get_buffer(name).to(buffer.device)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init = getattr(module, "init_parameters", None)
        if callable(init):
            init(None)

    @property
    def device(self) -> torch.device:
        """The device of the model, also of one without parameters."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model, also of one without parameters."""
        return self.model.dtype

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DecodingCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Returns the logits (B, T, V) of ids (B, T), with `labels` (B, T) the loss, and without them the cache.

        `attention_mask` (B, L), with L columns read so far, is 0 at padding, which may stand anywhere: a row is read
        without it. `labels[b, t]` is the token `input_ids[b, t]` itself, or -100 where it is ignored. The loss is the
        mean cross-entropy over the labels in nats, or their sum over `num_items_in_batch`. In training, auxiliary
        losses take part in the gradients; they are not part of the returned loss. A cache gives no gradients.
        Raises `InputError` for an argument that the model cannot honor.
        """
        cache, shifted, padding = past_key_values, others.pop("shift_labels", None), others.pop("padding_id", None)
        _refuse(others, cache, input_ids)
        assert input_ids is not None
        if padding is not None:
            input_ids = input_ids.masked_fill(input_ids == padding, 0)
        T, past_BL = input_ids.shape[1], None if cache is None else cache.mask()
        mask_BT = new_mask(input_ids, attention_mask, past_BL)
        check_positions(input_ids, position_ids, mask_BT, past_BL)
        targets_BT = shifted if labels is None or shifted is not None else next_labels(labels, mask_BT)
        if use_cache is None:
            use_cache = cache is not None or targets_BT is None
        # Step by step, a model that does not extrapolate sees a window that slides.
        slides = self.model.config.context_length < T and not self.model.traits.extrapolates
        loss: Tensor | None = None
        if cache is not None or (targets_BT is None and not torch.is_grad_enabled() and (use_cache or slides)):
            cache = DecodingCache() if cache is None else cache
            cache.extend(input_ids, mask_BT)
            all_of_them = targets_BT is not None or not isinstance(logits_to_keep, int) or logits_to_keep <= 0
            logits_BKV = cache.read(self.model, T if all_of_them else min(logits_to_keep, T))
            loss = None if targets_BT is None else cross_entropy(logits_BKV, targets_BT)
        else:
            logits_BKV, loss = self._logits(input_ids, mask_BT, targets_BT)
            if use_cache:  # the cache reads its tokens when it is used
                cache = DecodingCache()
                cache.extend(input_ids, mask_BT)
        if loss is not None and targets_BT is not None and num_items_in_batch is not None:
            loss = loss * ((targets_BT != IGNORE_INDEX).sum() / num_items_in_batch)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return CausalLMOutputWithPast(
            loss=loss, logits=logits_BKV[:, kept], past_key_values=cache if use_cache else None
        )

    def _logits(
        self, idx_BT: Tensor, mask_BT: Tensor | None, targets_BT: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the logits (B, T, V) and the loss, with gradients and without a state."""
        if targets_BT is not None and self.training and not self.model.traits.trainable:
            raise InputError(f"{self.model.family} is not trained by gradients: lmzoo train fits it")
        if mask_BT is None:
            logits_BTV, loss = self.model(idx_BT, targets_BT)
            return logits_BTV, loss
        idx_BT, order_BT = padding_last(idx_BT, mask_BT)
        if targets_BT is None:  # at padding, as in a cache: the logits after the last token before it
            return at(self.model(idx_BT).logits, (mask_BT.cumsum(dim=1) - 1).clamp(min=0)), None
        logits_BTV, loss = self.model(idx_BT, targets_BT.gather(1, order_BT))
        return at(logits_BTV, order_BT.argsort(dim=1)), loss

    def _prepare_cache_for_generation(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,  # noqa: ARG002 (transformers gives it)
        batch_size: int,  # noqa: ARG002
        max_cache_length: int,
    ) -> Any:
        """Called by `generate`. Raises `InputError` for another cache, and for a prompt without a token."""
        mask_BL = model_kwargs.get("attention_mask")
        if mask_BL is not None and not bool(mask_BL.any(dim=1).all()):
            raise InputError("attention_mask has a row without a token: there is nothing to continue")
        padding = generation_config._pad_token_tensor
        if padding is not None and int(padding) >= self.model.config.vocab_size:
            model_kwargs["padding_id"] = int(padding)  # `generate` continues finished rows with it
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise InputError(f"cache_implementation={kind!r}: models of lmzoo have a cache of their own")
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache is not False:
            model_kwargs["past_key_values"] = cache = DecodingCache(max_cache_length)
            if generation_config.is_assistant:
                cache.activate_past_recording()

    def _prepare_position_ids_for_generation(self, inputs_tensor: Any, model_kwargs: Any) -> Any:  # noqa: ARG002
        """Called by `generate`: None, since the model counts positions itself."""
        return None

    def init_continuous_batching(self, *_: Any, **__: Any) -> Any:
        """Raises `InputError`: its caches hold keys and values, which most families do not have."""
        raise InputError("generate_batch (continuous batching) is not supported by models of lmzoo: call generate")

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, every_n_layers: int = 1, **__: Any) -> None:
        """Called by transformers to keep only the input of each block for the backward pass."""
        if every_n_layers != 1:
            raise InputError(f"every_n_layers={every_n_layers} must be 1: models of lmzoo checkpoint every block")
        stacks = outermost_stacks(self.model)
        if not stacks:
            raise InputError(f"{self.model.family} has no blocks whose activations could be checkpointed")
        for stack in stacks:
            stack.checkpoints = enable

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embedding of tokens. Raises `NotImplementedError`, as transformers does, if there is none."""
        for module in self.model.modules():
            if isinstance(module, nn.Embedding) and module.num_embeddings == self.model.config.vocab_size:
                return module
        raise NotImplementedError(f"{self.model.family} has no embedding of tokens")

    def resize_token_embeddings(self, *_: Any, **__: Any) -> Any:
        """Raises `InputError`: the size of the vocabulary is a setting of the model."""
        raise InputError("vocab_size of a model of lmzoo is fixed when the model is made: it cannot be resized")


def _refuse(others: dict[str, Any], cache: Any, input_ids: Tensor | None) -> None:
    """Raise `InputError` for arguments that the model does not know, which could change what a model computes."""
    for name, value in others.items():
        # `generate` hands on the tokenizer that it got for stop strings.
        if value is not None and value is not False and name != "tokenizer":
            raise InputError(f"{name} is not supported by models of lmzoo")
    if input_ids is None:
        raise InputError("input_ids must be given: (B, T) int64")
    if cache is not None and not isinstance(cache, DecodingCache):
        raise InputError(f"past_key_values is a {type(cache).__name__}: it must be one that this model returned")


def register() -> None:
    """Registers the classes with transformers' Auto classes; a second call changes nothing."""
    AutoConfig.register(MODEL_TYPE, LmzooConfig, exist_ok=True)
    AutoModelForCausalLM.register(LmzooConfig, LmzooForCausalLM, exist_ok=True)
    # The names of causal models, by which the Trainer knows that label smoothing must shift the labels.
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[MODEL_TYPE] = LmzooForCausalLM.__name__
