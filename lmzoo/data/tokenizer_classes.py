"""The tokenizer classes of transformers 5 that replace parts of a tokenizer.json, as data.

`AutoTokenizer` takes the vocabulary, the merges and the post-processor of the file for these classes, and builds
normalizer, pre-tokenizer and decoder anew. All other classes of its own are refused by name; every further name stands
for `TokenizersBackend`, which uses the file as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tokenizers import Regex, decoders, normalizers, pre_tokenizers

Parts = tuple[Any, Any, Any]  # normalizer, pre-tokenizer, decoder

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?{letter}+|\p{N}| ?[^\s{mark}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TokenizerClass:
    """A class that builds its parts anew: `parts(add_prefix_space, legacy)`."""

    parts: Callable[[bool, bool], Parts]
    special: Mapping[str, str | None] = field(default_factory=dict[str, str | None])  # its default special tokens
    model: Mapping[str, Any] = field(default_factory=dict[str, Any])  # options of its BPE model
    prefix: bool = False  # default of add_prefix_space
    unknown: bool = False  # the BPE model gets the unknown token
    bare: bool = False  # leaves out the special tokens that the file adds to a text
    # Adds its special tokens a second time: all without attributes such as lstrip, or those without attributes.
    again: Literal["", "plain", "kept"] = ""
    unigram: bool = False  # has pieces with scores, and the character map of the file, in place of BPE
    first: str = ""  # the name of a special token before each text, whatever the file says
    further: tuple[str, ...] = ()  # special tokens without a name


def _byte_level(prefix: bool, _legacy: bool) -> Parts:
    return None, pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()


def _neox(prefix: bool, _legacy: bool) -> Parts:
    return normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()


def _cohere(prefix: bool, _legacy: bool) -> Parts:
    digits = pre_tokenizers.Digits(individual_digits=True)
    splits = [digits, pre_tokenizers.ByteLevel(add_prefix_space=prefix)]
    return normalizers.NFC(), pre_tokenizers.Sequence(splits), decoders.ByteLevel()


def _qwen(letter: str, mark: str) -> Callable[[bool, bool], Parts]:
    pattern = _QWEN.replace("{letter}", letter).replace("{mark}", mark)

    def parts(prefix: bool, _legacy: bool) -> Parts:
        words = pre_tokenizers.Split(Regex(pattern), "isolated")
        splits = [words, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)]
        return normalizers.NFC(), pre_tokenizers.Sequence(splits), decoders.ByteLevel()

    return parts


def _llama(prefix: bool, legacy: bool) -> Parts:
    scheme = ("always" if legacy else "first") if prefix else "never"
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    back += [decoders.Strip(" ", 1, 0)] if prefix else []
    return None, pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False), decoders.Sequence(back)


def _gemma(_prefix: bool, _legacy: bool) -> Parts:
    back = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), back


def _openai_gpt(_prefix: bool, _legacy: bool) -> Parts:
    back = decoders.BPEDecoder(suffix="</w>")
    return normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer(), back


def _xglm(prefix: bool, _legacy: bool) -> Parts:
    scheme = "always" if prefix else "never"
    spaces = normalizers.Replace(Regex(r" {2,}"), " ")
    return spaces, pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme)


SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_COHERE = ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>", "<SEP>", "<PAD>", "<CLS>", "<MASK_TOKEN>")
_END = "<|endoftext|>"
_FALLBACK = {"fuse_unk": True, "byte_fallback": True}
REBUILT: Mapping[str, TokenizerClass] = {
    "GPT2Tokenizer": TokenizerClass(_byte_level, {"bos_token": _END, "eos_token": _END, "unk_token": _END}),
    "CodeGenTokenizer": TokenizerClass(_byte_level, {"bos_token": _END, "eos_token": _END, "unk_token": _END}),
    "GPTNeoXTokenizer": TokenizerClass(
        _neox, {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|padding|>"}, bare=True
    ),
    "Qwen2Tokenizer": TokenizerClass(
        _qwen(r"\p{L}", r"\p{L}"), {"eos_token": _END, "unk_token": _END, "pad_token": _END}, again="plain"
    ),
    "Qwen3_5Tokenizer": TokenizerClass(
        _qwen(r"[\p{L}\p{M}]", r"\p{L}\p{M}"), {"eos_token": _END, "unk_token": _END, "pad_token": _END}
    ),
    "LlamaTokenizer": TokenizerClass(
        _llama, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, _FALLBACK, prefix=True
    ),
    "GemmaTokenizer": TokenizerClass(
        _gemma,
        dict(zip(SPECIAL, ("<bos>", "<eos>", "<unk>", None, "<pad>", None, "<mask>"), strict=True)),
        _FALLBACK,
        unknown=True,
    ),
    "CohereTokenizer": TokenizerClass(
        _cohere,
        dict(zip(SPECIAL, _COHERE, strict=True)),
        again="kept",
    ),
    "OpenAIGPTTokenizer": TokenizerClass(
        _openai_gpt,
        {"unk_token": "<unk>"},
        {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": False},
        unknown=True,
    ),
    "XGLMTokenizer": TokenizerClass(
        _xglm,
        dict(zip(SPECIAL, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>"), strict=False)),
        prefix=True,
        unigram=True,
        first="eos_token",
        further=tuple(f"<madeupword{number}>" for number in range(7)),
    ),
}
# Classes of transformers that lmzoo does not follow.
REFUSED = frozenset(
    {
        *("Albert", "Bart", "Barthez", "Bartpho", "Bert", "BertGeneration", "BertJapanese", "Bertweet", "BigBird"),
        *("BioGpt", "Blenderbot", "BlenderbotSmall", "ByT5", "CLIP", "CTRL", "Camembert", "Canine", "Clvp"),
        *("CodeLlama", "ConvBert", "Cpm", "CpmAnt", "DPRContextEncoder", "DPRQuestionEncoder", "DPRReader"),
        *("Deberta", "DebertaV2", "Dia", "DistilBert", "Electra", "Esm", "Esmc", "FNet", "FSMT"),
        *("FastSpeech2Conformer", "Flaubert", "Funnel", "GPTNeoXJapanese", "GPTSw3", "Herbert", "LED", "Lasr"),
        *("LayoutLM", "LayoutLMv2", "LayoutLMv3", "LayoutXLM", "Longformer", "Luke", "Lxmert", "M2M100", "MBart"),
        *("MBart50", "MLuke", "MPNet", "Marian", "MarkupLM", "Mgpstr", "MobileBert", "Mvp", "MyT5", "Nllb"),
        *("Nougat", "PLBart", "Parakeet", "Pegasus", "Perceiver", "Phobert", "ProphetNet", "Rag"),
        *("Reformer", "RemBert", "RoCBert", "RoFormer", "Roberta", "SeamlessM4T", "Siglip", "Siglip2"),
        *("Speech2Text", "SpeechT5", "Splinter", "SqueezeBert", "T5", "Tapas", "Tipsv2", "Udop", "VideoPrism"),
        *("Vits", "Wav2Vec2CTC", "Wav2Vec2PhonemeCTC", "Whisper", "XLM", "XLMRoberta", "XLNet"),
    }
)
# The class of a model type whose tokenizer_config.json names none, or a wrong one.
OF_MODEL_TYPE: Mapping[str, str] = {
    **dict.fromkeys(
        ("aya_vision", "cohere", "cohere2"),
        "CohereTokenizer",
    ),
    **dict.fromkeys(
        (
            *("blip-2", "codegen", "dbrx", "emu3", "gpt2", "gpt_neo", "gptj", "hyperclovax_vision_v2"),
            *("instructblip", "instructblipvideo", "jais2", "opt", "phi", "starcoder2"),
        ),
        "GPT2Tokenizer",
    ),
    **dict.fromkeys(
        ("falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "xlstm"),
        "GPTNeoXTokenizer",
    ),
    **dict.fromkeys(
        (
            *("diffusion_gemma", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text"),
            *("recurrent_gemma", "shieldgemma2", "t5gemma", "zaya"),
        ),
        "GemmaTokenizer",
    ),
    **dict.fromkeys(
        ("idefics", "idefics2"),
        "LlamaTokenizer",
    ),
    **dict.fromkeys(
        (
            *("audioflamingo3", "colqwen2", "cosmos3_omni", "dots3_note", "fun_asr_nano", "hunyuan_vl"),
            *("internvl", "lighton_ocr", "moss_transcribe_diarize", "ovis2", "qianfan_ocr", "qwen2"),
            *("qwen2_5_omni", "qwen2_5_vl", "qwen2_audio", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_asr"),
            *("qwen3_moe", "qwen3_next", "qwen3_omni_moe", "qwen3_vl", "qwen3_vl_moe", "vibevoice"),
        ),
        "Qwen2Tokenizer",
    ),
    "openai-gpt": "OpenAIGPTTokenizer",
    "xglm": "XGLMTokenizer",
    **dict.fromkeys(
        ("qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen4_exp"),
        "Qwen3_5Tokenizer",
    ),
    **dict.fromkeys(
        (
            *("arctic", "aria", "beam", "bigbird_pegasus", "camembertv2-base", "canary", "chatlm", "cohere_asr"),
            *("ernie4_5", "ernie4_5_moe", "flex_olmo", "fuyu", "glm", "glm4", "glm4_moe", "glm4_moe_lite"),
            *("glm4v", "glm4v_moe", "glm_image", "glmasr", "got_ocr2", "gpt_bigcode", "gradium_phonon_tts"),
            *("granite", "granitemoe", "granitemoehybrid", "granitemoeshared", "h2ovl_chat", "hyperclovax"),
            *("hyperclovax_vlm", "internlm2", "internlm3", "iquestcoder", "jamba", "kimi_k25", "kimi_linear"),
            *("kosmos-2", "llava", "llava_next", "mimo_v2_flash", "minicpm3", "minicpm_ocr", "minicpmv"),
            *("minicpmv4_6", "minicpmv4_7", "minimax_m2", "ministral", "ministral3", "mistral", "mistral3"),
            *("mistral_large4", "mixtral", "modernbert", "modernbert-decoder", "molmo", "molmo2", "nemo_speechlm"),
            *("nemotron", "nvfp4", "nystromformer", "olmo2", "olmo3", "olmo_hybrid", "opencua", "openvla"),
            *("paddleocr_vl", "pegasus_x", "persimmon", "phi3", "phi3_v", "phimoe", "pix2struct", "pixtral"),
            *("pocket_tts", "smolvlm", "stablelm", "step3_vl", "umt5", "vipllava", "voxtral", "voxtral_realtime"),
            *("xlm-roberta-xl",),
        ),
        "TokenizersBackend",
    ),
}
# Model types for which transformers does not believe the class in tokenizer_config.json.
CORRECTED = frozenset(
    {
        *("arctic", "camembertv2-base", "chatlm", "cohere_asr", "ernie4_5", "ernie4_5_moe", "fuyu", "h2ovl_chat"),
        *("hyperclovax", "hyperclovax_vision_v2", "hyperclovax_vlm", "internlm2", "internlm3", "iquestcoder"),
        *("jamba", "llava", "llava_next", "minicpm3", "minicpmv", "minimax_m2", "modernbert"),
        *("modernbert-decoder", "molmo", "molmo2", "nemotron", "nvfp4", "opencua", "openvla", "paddleocr_vl", "phi3"),
        *("phi3_v", "phimoe", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp", "siglip2"),
        *("smolvlm", "step3_vl", "vipllava"),
    }
)


def class_name(model_type: str, named: str | None, *, byte_level: bool) -> str | None:
    """Returns the class of transformers for a model type, None for `TokenizersBackend`, which takes the file as it is.

    `named` is the class in tokenizer_config.json or config.json; `byte_level` whether the tokenizer.json names a
    ByteLevel part, which the class of Llama does not have.
    """
    named = None if named is None else named.removesuffix("Fast")
    usual = OF_MODEL_TYPE.get(model_type)
    if named == "LlamaTokenizer" and byte_level and model_type not in CORRECTED:
        return None
    if usual == "TokenizersBackend":  # for another class, too
        return None
    found = usual if named is None or model_type in CORRECTED else named
    return found if found in REBUILT or (found or "").removesuffix("Tokenizer") in REFUSED else None
