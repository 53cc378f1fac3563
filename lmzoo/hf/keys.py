"""Keys of config.json that many architectures share: sizes, heads, activations, and those without effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.hf.architecture import Config, Key, Only, To, Together, Unread, Unused, Value, checked, refused


def unused(*keys: str) -> dict[str, Key]:
    """Returns the meaning of keys that have no effect on the logits."""
    return {key: Unused() for key in keys}


def unread(value: Any, *keys: str) -> dict[str, Key]:
    """Returns the meaning of keys that transformers does not read, which must have this value or be missing."""
    return {key: Unread(value) for key in keys}


def without(table: Mapping[str, Value], *names: str) -> dict[str, Value]:
    """Returns the entries of a table of keys, or of names of weights, except for these."""
    return {name: entry for name, entry in table.items() if name not in names}


# Keys that do not change the logits of a full forward pass in eval mode.
WITHOUT_EFFECT = frozenset(
    {
        # about the file
        *("model_type", "architectures", "auto_map", "transformers_version", "_name_or_path", "name_or_path"),
        *("dtype", "torch_dtype", "_commit_hash", "_attn_implementation", "attn_implementation"),
        *("_attn_implementation_autoset", "_experts_implementation", "use_bfloat16", "torchscript", "tf_legacy_loss"),
        *("transformers.js_config", "unsloth_fixed", "unsloth_version", "tokenizer_name"),
        *("custom_pipelines", "output_past", "_num_labels"),
        # training
        *("initializer_range", "attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop"),
        *("resid_dropout", "embd_dropout", "dropout", "activation_dropout", "embedding_dropout", "layerdrop"),
        *("attention_probs_dropout_prob", "hidden_dropout_prob", "neftune_noise_alpha"),
        *("use_cache", "gradient_checkpointing", "output_attentions", "output_hidden_states", "return_dict"),
        *("return_dict_in_generate", "output_scores", "use_return_dict", "chunk_size_feed_forward", "is_decoder"),
        # other tasks
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        *("classifier_dropout", "pruned_heads", "tokenizer_class", "prefix", "pretraining_tp"),
        # tokens
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "cls_token_id"),
        *("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "mask_token_id"),
        # generation
        *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "temperature"),
        *("diversity_penalty", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "bad_words_ids"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "suppress_tokens"),
        *("begin_suppress_tokens", "exponential_decay_length_penalty", "remove_invalid_values", "max_new_tokens"),
    }
)
# Keys of every config that lmzoo supports with one value alone.
EVERY: Mapping[str, Key] = {
    "is_encoder_decoder": Only(None, (False,)),
    "add_cross_attention": Only(None, (False,)),
    "cross_attention_hidden_size": Only(None),
    "tie_encoder_decoder": Only(None, (False,)),
}
SIZES: Mapping[str, Key] = {
    **EVERY,
    "vocab_size": To("vocab_size"),
    "hidden_size": To("d_model"),
    "num_hidden_layers": To("n_layers"),
    "max_position_embeddings": To("context_length"),
}
HEAD_DIM: Mapping[str, Key] = {"head_dim": To("head_dim", None)}
ATTENTION: Mapping[str, Key] = {
    **SIZES,
    "num_attention_heads": To("n_heads"),
    "num_key_value_heads": To("n_kv_heads", None),
    "intermediate_size": To("d_ff"),
    "rms_norm_eps": To("norm_eps", 1e-6),
}
# Of classifiers on top of a first GPT or GPT-2, and relatives.
SUMMARY = unused(
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout")
)
SWIGLU = Only("silu", ("swish",))
GELU_TANH = Only("gelu_pytorch_tanh", ("gelu_new", "gelu_fast"))
GELUS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}


def plain_heads(hidden: int, heads: int) -> Together:
    """Returns the key of the width of a head in a family that takes no other than `hidden_size / num_attention_heads`.

    The numbers are the defaults of these two keys.
    """

    def check(config: Config) -> None:
        width, count = config.value("hidden_size", hidden), config.value("num_attention_heads", heads)
        if config.value("head_dim", width // max(1, count)) * count != width:
            raise refused("head_dim", config.get("head_dim"), "must be hidden_size / num_attention_heads")

    return checked(("head_dim",), check)
