"""The tokenizer files of a Hugging Face directory: `AutoTokenizer` gives the same ids as the tokenizer of lmzoo."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lmzoo import files
from lmzoo.data.conventions import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from lmzoo.data.tokenizers import REPLACEMENT, TOKENIZER_FILE, ByteTokenizer, CharTokenizer, load_tokenizer

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer

MODEL_CONFIG_FILE = "config.json"


def tokenizer_files(tokenizer: Tokenizer, context_length: int) -> dict[str, str]:
    """Returns the texts of the files by their names: tokenizer.json, tokenizer_config.json, and others if needed.

    A tokenizer.json of Hugging Face stays as it is, and so do chat templates and the tokens that end a text.
    """
    texts = {**tokenizer.files(), TOKENIZER_FILE: hf_json(tokenizer)}
    config = {
        **files.parse_json(texts.get(TOKENIZER_CONFIG_FILE, "{}")),
        "tokenizer_class": "PreTrainedTokenizerFast",  # also for transformers 4, which has no TokenizersBackend
        "model_max_length": context_length,
    }
    config.setdefault("clean_up_tokenization_spaces", False)
    return {**texts, TOKENIZER_CONFIG_FILE: json.dumps(config, indent=2, ensure_ascii=False)}


def is_kept(texts: dict[str, str], model_type: str) -> bool:
    """True if transformers uses the tokenizer in these files as it is beside a model of this type.

    For some types it takes a class of its own, whatever the files say, and builds parts of the tokenizer anew.
    """
    from tokenizers import Tokenizer as HFTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**texts, MODEL_CONFIG_FILE: json.dumps({"model_type": model_type})}.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        loaded = load_tokenizer(folder).to_json()
    return HFTokenizer.from_str(loaded).to_str() == HFTokenizer.from_str(texts[TOKENIZER_FILE]).to_str()


def hf_json(tokenizer: Tokenizer) -> str:
    """Returns the JSON of a tokenizer for the package `tokenizers`.

    A character that a tokenizer `char` does not know is an error there, too.
    """
    if not isinstance(tokenizer, (ByteTokenizer, CharTokenizer)):
        return tokenizer.to_json()
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as HFTokenizer

    if isinstance(tokenizer, ByteTokenizer):
        from lmzoo.data.bpe import BYTE_NAMES

        hf = HFTokenizer(models.BPE(vocab=BYTE_NAMES, merges=[]))
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        hf.decoder = decoders.ByteLevel()
        return hf.to_str()
    ids = {char: token for token, char in enumerate(tokenizer.chars)}
    unknown = {"unk_token": REPLACEMENT} if tokenizer.unknown else {}
    hf = HFTokenizer(models.WordLevel(vocab=ids, **unknown))
    hf.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    hf.decoder = decoders.Fuse()
    return hf.to_str()
