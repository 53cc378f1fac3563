"""Small tokenizers in the shapes of well-known models, in folders as transformers saves them."""

from __future__ import annotations

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HFTokenizer

TEXTS = [
    "Hello, world",
    "  two spaces  and\n\nlines\t ",
    "\n",
    " ",
    "",
    "a",
    "中文，你好。 hello hello",
    "caf\u00e9 cafe\u0301 \U0001f469\u200d\U0001f4bb 12345",
    "<s>special</s> a <s> b</s>",
    "<|im_start|>user\nhello<|im_end|>\n",
    "a <mark> b<mark>c  <mark>\n <mark>",
    "it's , what ' s . I ' ve n't ? no !",
]
_MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "a"), ("Ġ", "hello"), ("1", "2"), ("ä", "¸")]


def byte_level(*, llama3: bool = False) -> HFTokenizer:
    """GPT-2's form, or that of Llama 3 with a pattern of its own and a token at the beginning."""
    vocab = {name: index for index, name in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for one, other in _MERGES:
        vocab[one + other] = len(vocab)
    vocab["<|endoftext|>"] = len(vocab)
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=_MERGES, ignore_merges=llama3))
    if llama3:
        split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+"), "isolated")
        hf.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    else:
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        hf.post_processor = processors.ByteLevel(trim_offsets=False)
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"])
    if llama3:
        hf.post_processor = begins_with("<s>", hf)
    return hf


def begins_with(token: str, hf: HFTokenizer) -> processors.TemplateProcessing:
    index = hf.token_to_id(token)
    return processors.TemplateProcessing(f"{token} $A", f"{token} $A {token} $B", [(token, index)])


def sentence_piece(*, form: str) -> HFTokenizer:
    """BPE with byte fallback: `form` is that of the file of Llama 2, of newer ones with Metaspace, or of Gemma."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, **{f"<0x{byte:02X}>": byte + 4 for byte in range(256)}}
    for piece in ("▁", *"Helowrdaspcnitxbv,", "中", "文", "▁a", "ll", "he", "hell", "hello", "▁hello"):
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "a"), ("l", "l"), ("h", "e"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    vocab["h"] = len(vocab)
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if form == "llama2":
        hf.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif form == "metaspace":
        hf.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        hf.normalizer, hf.pre_tokenizer = (
            normalizers.Replace(" ", "▁"),
            pre_tokenizers.Split(" ", "merged_with_previous"),
        )
    hf.decoder = decoders.Sequence(parts if form == "gemma" else [*parts, decoders.Strip(" ", 1, 0)])
    hf.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    hf.add_tokens([AddedToken("<mark>", lstrip=True, rstrip=True)])
    hf.post_processor = begins_with("<s>", hf)
    return hf


def unigram() -> HFTokenizer:
    """T5's form: SentencePiece's unigram model."""
    words = ["Hello", "world", "two", "space", "he", "ll", "a", "b", "中", "文", "."]
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((f"▁{word}", -3.0) for word in words), *((c, -4.0) for c in "Helowrdabc,")]
    hf = HFTokenizer(models.Unigram(pieces, unk_id=0))
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    hf.add_special_tokens(["<s>", "</s>"])
    index = hf.token_to_id("</s>")
    hf.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", index)])
    return hf


def fairseq() -> HFTokenizer:
    """XGLM's form: pieces whose unknown one is the fourth."""
    words = ["Hello", "world", "two", "space", "he", "ll", "a", "b", "中", "文", "."]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [*((f"▁{word}", -3.0) for word in words), *((c, -4.0) for c in "Helowrdabc,")]
    hf = HFTokenizer(models.Unigram(pieces, unk_id=3))
    hf.normalizer = normalizers.Sequence([normalizers.NFC()])  # another one than the class has
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    hf.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    hf.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 2)])
    return hf


def words_with_ends(*, post: bool = False) -> HFTokenizer:
    """The first GPT's form: BPE of words in small letters, whose last piece has a mark."""
    letters = [*"helowrdabc,.'", "<unk>"]
    vocab = {piece: index for index, piece in enumerate([*letters, *(f"{piece}</w>" for piece in letters[:-1])])}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o</w>")]
    for one, other in merges:
        vocab[one + other] = len(vocab)
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", end_of_word_suffix="</w>"))
    hf.normalizer, hf.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.BPEDecoder(suffix="</w>")
    hf.add_special_tokens(["<unk>", "<s>"])
    if post:
        hf.post_processor = begins_with("<s>", hf)
    return hf


def word_piece(*, cleanup: bool = False) -> HFTokenizer:
    """BERT's form, which changes a text."""
    words = ["hello", "world", "two", "it", "a", "b", "'", "s", "ve", "n", "t", "no", "what", "i", *",.?!", "中"]
    names = dict.fromkeys(["[UNK]", "[CLS]", "[SEP]", *words, *(f"##{char}" for char in "abcdelorstw")])
    hf = HFTokenizer(models.WordPiece({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    hf.normalizer, hf.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece(cleanup=cleanup)
    hf.add_special_tokens(["[CLS]", "[SEP]"])
    hf.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    return hf


def save(
    folder: Path, hf: HFTokenizer, model_type: str, config: Mapping[str, Any] | None = None, **others: Mapping[str, Any]
) -> Path:
    """Write tokenizer.json, config.json, tokenizer_config.json unless it is None, and further JSON files by name."""
    folder.mkdir(exist_ok=True)
    hf.save(str(folder / "tokenizer.json"))
    contents = {"config": {"model_type": model_type}, **others}
    if config is not None:
        contents["tokenizer_config"] = config
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
