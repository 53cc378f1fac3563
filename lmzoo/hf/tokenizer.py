"""The tokenizer files of a Hugging Face directory: `AutoTokenizer` gives the same ids as the tokenizer of lmzoo."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmzoo.data.tokenizers import REPLACEMENT, TOKENIZER_FILE, ByteTokenizer, CharTokenizer

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"


def tokenizer_files(tokenizer: Tokenizer, context_length: int) -> dict[str, str]:
    """Returns the content of tokenizer.json and tokenizer_config.json by their names.

    A tokenizer.json of Hugging Face stays as it is. Names of special tokens are not written: lmzoo stops at none.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    return {TOKENIZER_FILE: hf_json(tokenizer), TOKENIZER_CONFIG_FILE: json.dumps(config, indent=2)}


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
