"""The tokenizer of a GGUF file: byte-level BPE with a pattern that llama.cpp knows, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmzoo import files
from lmzoo.data.tokenizers import Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

# Names in llama.cpp of the patterns that split a text into words (`tokenizer.ggml.pre`).
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {_LLAMA3: "llama-bpe", _LLAMA3.replace("{1,3}", ""): "qwen2"}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer | None, vocab_size: int) -> str | None:
    """Writes the tokens, merges and special tokens; returns the name of the pattern, None if there is no tokenizer.

    None means that the file says so, and whoever runs the model gives and gets token ids.
    """
    content = None if tokenizer is None else files.parse_json(tokenizer.to_json())
    name = None if content is None else pattern_of(content)
    if tokenizer is None or content is None or name is None:
        writer.add_tokenizer_model("none")
        return None
    added = {token["id"]: token for token in content.get("added_tokens") or ()}
    texts = {index: text for text, index in content["model"]["vocab"].items()}
    texts |= {index: token["content"] for index, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([texts.get(index, f"[PAD{index}]") for index in range(vocab_size)])
    writer.add_token_types([_type(index, texts, added) for index in range(vocab_size)])
    pairs = content["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in pairs])
    ids = {text: index for index, text in texts.items()}
    chat = tokenizer.conventions.chat
    for key, name_of_id in _IDS.items():
        if (index := ids.get(chat.tokens.get(key, ""))) is not None and index < vocab_size:
            writer.add_uint32(f"tokenizer.ggml.{name_of_id}_token_id", index)
    if len(tokenizer.stop_tokens) > 1:  # the end of a turn beside the end of a text
        writer.add_eot_token_id(tokenizer.stop_tokens[-1])
    first = tokenizer.encode("")
    writer.add_add_bos_token(bool(first) and first[0] == ids.get(chat.tokens.get("bos_token", "")))
    if chat.templates:
        named = [{"name": key, "template": text} for key, text in chat.templates.items()]
        writer.add_chat_template(chat.templates["default"] if [*chat.templates] == ["default"] else named)
    return name


def pattern_of(content: dict[str, Any]) -> str | None:
    """Returns llama.cpp's name for the pattern of a tokenizer.json, None if it is no byte-level BPE that it knows."""
    model = content.get("model") or {}
    if model.get("type", "BPE") != "BPE" or not model.get("merges") or model.get("byte_fallback"):
        return None
    splits = content.get("pre_tokenizer") or {}
    normalizer = (content.get("normalizer") or {}).get("type")
    if splits.get("type") == "ByteLevel" and splits.get("use_regex", True):
        return "gpt-2" if normalizer is None and not splits.get("add_prefix_space") else None
    parts = splits.get("pretokenizers") or []
    if [part.get("type") for part in parts] != ["Split", "ByteLevel"] or parts[1].get("use_regex", True):
        return None
    if parts[1].get("add_prefix_space") or parts[0].get("behavior") != "Isolated" or parts[0].get("invert"):
        return None
    name = _PATTERNS.get(str((parts[0].get("pattern") or {}).get("Regex")))
    return name if normalizer in (None, "NFC" if name == "qwen2" else None) else None


def _type(index: int, texts: dict[int, str], added: dict[int, dict[str, Any]]) -> int:
    if index not in texts:
        return _UNUSED
    if index not in added:
        return _NORMAL
    return _CONTROL if added[index].get("special") else _USER_DEFINED
