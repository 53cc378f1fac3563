"""Reads what stands beside a tokenizer.json: the tokens added to it, how text is encoded, chat templates, stop tokens.

It follows `AutoTokenizer` of transformers 5, so that the same folder gives the same tokens. Keys of
tokenizer_config.json that change the tokens are honored or refused by name.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, models, normalizers, processors
from tokenizers import Tokenizer as HFTokenizer

from lmzoo import files
from lmzoo.data.chat import ChatFormat
from lmzoo.data.conventions import CLEAN_BPE, CONFIG_FILE, GENERATION_FILE, Conventions
from lmzoo.data.tokenizer_classes import REBUILT, SPECIAL, Parts, class_name
from lmzoo.errors import DataError

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"
_MODEL_FILE = "config.json"
_MAX_BYTES = 16 << 20
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


class _Tokens(NamedTuple):
    named: dict[str, str | AddedToken]  # special tokens, by names such as bos_token
    further: list[str | AddedToken]  # special tokens without a name
    added: dict[int, AddedToken]


@contextmanager
def library_errors() -> Generator[None]:
    """Within the block, errors of the package `tokenizers` are raised as a `DataError` of one line."""
    try:
        yield
    except DataError:
        raise
    except BaseException as error:  # the library raises bare Exception, and PanicException, which is none
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(" ".join(str(error).split())) from None


def read_conventions(folder: Path, content: Mapping[str, Any], text: str) -> tuple[HFTokenizer, str, Conventions]:
    """Returns the tokenizer that encodes as transformers does with the files of a folder, its JSON, and the rest.

    `content` is the parsed `text` of the tokenizer.json, which is returned unchanged if it is used as it is. Raises
    `DataError` naming file, key, value and rule.
    """
    config, model = read_object(folder / CONFIG_FILE), read_object(folder / _MODEL_FILE)
    stops, templates = _stop_tokens(folder, model), _templates(folder, config)
    try:
        kind = _kind(config, model, text)
        tokens = _tokens(folder, config, content, {} if kind is None else REBUILT[kind].special)
        if kind is not None and not tokens.further:
            tokens = tokens._replace(further=[*REBUILT[kind].further])
        hf = HFTokenizer.from_str(text) if kind is None else _rebuilt(kind, config, content, tokens)
        changed = _add_tokens(hf, tokens) or kind is not None
        if kind is not None and (first := REBUILT[kind].first):
            token = str(tokens.named[first])
            hf.post_processor = processors.TemplateProcessing(
                [token, "$A"], special_tokens=[(token, hf.token_to_id(token))]
            )
        if kind is not None and (again := REBUILT[kind].again):
            special = dict.fromkeys([*tokens.named.values(), *tokens.further])
            plain = again == "plain"
            hf.add_special_tokens(
                [AddedToken(str(t), special=True) if plain or isinstance(t, str) else t for t in special]
            )
        clean = _flag(config, "clean_up_tokenization_spaces")
        clean = clean and (not isinstance(hf.model, models.BPE) or _flag(config, CLEAN_BPE))
        split = _flag(config, "split_special_tokens")
    except DataError as error:
        raise DataError(f"{folder / CONFIG_FILE}: {error}") from None
    chat = ChatFormat(templates, {name: str(token) for name, token in tokens.named.items()})
    return hf, hf.to_str() if changed else text, Conventions(split, clean, chat, stops)


def _kind(config: Mapping[str, Any], model: Mapping[str, Any], text: str) -> str | None:
    """Returns the class that builds parts of the tokenizer anew, or None. Raises `DataError` for one not followed."""
    named, model_type = config.get("tokenizer_class") or model.get("tokenizer_class"), model.get("model_type")
    if named is not None and not isinstance(named, str):
        raise DataError(f"tokenizer_class={named!r} must be a text")
    kind = class_name(model_type if isinstance(model_type, str) else "", named, byte_level='"ByteLevel"' in text)
    if kind is not None and kind not in REBUILT:
        raise DataError(
            f"tokenizer_class={named!r} changes tokenizer.json in a way that lmzoo does not follow; remove the key to "
            "use tokenizer.json as it is"
        )
    if config.get("fix_mistral_regex"):
        raise DataError("fix_mistral_regex must be false: save the corrected tokenizer.json instead")
    return kind


def _rebuilt(kind: str, config: Mapping[str, Any], content: Mapping[str, Any], tokens: _Tokens) -> HFTokenizer:
    """Builds the tokenizer of a class from vocabulary, merges and post-processor of the file."""
    rules, model = REBUILT[kind], content["model"]
    prefix, legacy = _flag(config, "add_prefix_space", rules.prefix), _flag(config, "legacy")
    if rules.unigram:
        return _rebuilt_unigram(kind, content, rules.parts(prefix, legacy))
    vocab, merges = model.get("vocab"), model.get("merges")
    if model.get("type", "BPE") != "BPE" or not isinstance(vocab, dict) or not isinstance(merges, list):
        raise DataError(f"tokenizer_class={kind!r} needs a BPE model in tokenizer.json, not {model.get('type')!r}")
    pairs = [_pair(merge) for merge in merges]
    options = {**rules.model, "unk_token": str(tokens.named.get("unk_token"))} if rules.unknown else rules.model
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=pairs, **options))
    hf.normalizer, hf.pre_tokenizer, hf.decoder = rules.parts(prefix, legacy)
    if not rules.bare and content.get("post_processor") is not None:
        nothing: dict[str, Any] = {"vocab": {}, "merges": []}
        empty = {**content, "model": {**model, **nothing}, "added_tokens": list[Any]()}
        hf.post_processor = HFTokenizer.from_str(json.dumps(empty)).post_processor
    return hf


def _rebuilt_unigram(kind: str, content: Mapping[str, Any], parts: Parts) -> HFTokenizer:
    """Builds the tokenizer of a class from the pieces and the character map of the file."""
    model = content["model"]
    vocab = model.get("vocab")
    if model.get("type") != "Unigram" or not isinstance(vocab, list):
        raise DataError(f"tokenizer_class={kind!r} needs a Unigram model in tokenizer.json, not {model.get('type')!r}")
    hf = HFTokenizer(models.Unigram([tuple(piece) for piece in vocab], unk_id=3, byte_fallback=False))
    normalizer, hf.pre_tokenizer, hf.decoder = parts
    given = content.get("normalizer") or {}
    steps = given.get("normalizers") or [] if given.get("type") == "Sequence" else [given]
    maps = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
    before = [normalizers.Precompiled(base64.b64decode(maps[0]))] if maps else []
    hf.normalizer = normalizers.Sequence([*before, normalizer])
    return hf


def _pair(merge: object) -> tuple[str, str]:
    """Returns the two parts of a merge, which older files write as one text."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise DataError(f"model.merges has {merge!r}, which must be two tokens")
    return parts[0], parts[1]


def _tokens(
    folder: Path, config: Mapping[str, Any], content: Mapping[str, Any], defaults: Mapping[str, str | None]
) -> _Tokens:
    """Returns the special and the added tokens, of tokenizer_config.json alone if it lists added tokens."""
    given = {**config}
    if "added_tokens_decoder" in config:
        added = _listed_tokens(config)
    else:
        given |= read_object(folder / "special_tokens_map.json")
        added = _unlisted_tokens(folder, given, content)
    extra, further = given.get("extra_special_tokens") or [], given.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        given = {**given, **extra}
    else:
        further = extra or further
    if not isinstance(further, list):
        raise DataError(f"extra_special_tokens={further!r} must be a list of tokens, or an object")
    named = {key: given[key] for key in SPECIAL if given.get(key) is not None}
    named |= {key: value for key, value in given.items() if key.endswith("_token") and isinstance(value, (str, dict))}
    by_text = {token.content: token for token in added.values()}
    tokens = {key: value if isinstance(value, str) else _token(key, value) for key, value in named.items()}
    tokens |= {key: by_text.get(str(tokens[key]), tokens[key]) for key in SPECIAL if key in tokens}
    # The defaults of the class come before the other names, unless the files say that there is no such token.
    tokens = {**{key: value for key, value in defaults.items() if value is not None and key not in given}, **tokens}
    tokens = {key: tokens[key] for key in (*SPECIAL, *tokens) if key in tokens}
    others = [value if isinstance(value, str) else _token("extra_special_tokens", value) for value in further]
    return _Tokens(tokens, others, added)


def _listed_tokens(config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Returns the added tokens that tokenizer_config.json lists, by id."""
    added: dict[int, AddedToken] = {}
    for index, token in _object(config, "added_tokens_decoder").items():
        if not (index.isascii() and index.isdigit() and len(index) < 10):
            raise DataError(f"added_tokens_decoder has the key {index!r}, which must be a token id")
        added[int(index)] = _token("added_tokens_decoder", token)
    return added


def _unlisted_tokens(folder: Path, given: Mapping[str, Any], content: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Returns the added tokens of added_tokens.json and of tokenizer.json, by id; `given` names the special ones."""
    added: dict[int, AddedToken] = {}
    names = {value for value in given.values() if isinstance(value, str)}
    for text, index in read_object(folder / "added_tokens.json").items():
        if type(index) is not int:
            raise DataError(f"added_tokens.json has {text!r}: {index!r}, which must be a token id")
        added[index] = AddedToken(text, normalized=text not in names, special=text in names)
    for entry in content.get("added_tokens") or ():
        token = _token("added_tokens", entry)
        if type(entry.get("id")) is not int:
            raise DataError(f"added_tokens has {entry!r}, which must have an id")
        added[entry["id"]] = token
    return added


def _add_tokens(hf: HFTokenizer, tokens: _Tokens) -> bool:
    """Adds the tokens that the tokenizer lacks, or has with other attributes; returns True if there are any."""
    there = {repr(token) for token in hf.get_added_tokens_decoder().values()}
    new: list[str | AddedToken] = [token for _, token in sorted(tokens.added.items()) if repr(token) not in there]
    known = {token.content for token in hf.get_added_tokens_decoder().values()} | {str(token) for token in new}
    for token in (*tokens.named.values(), *tokens.further):
        if str(token) not in known:
            new.append(token)
            known.add(str(token))
    names = {str(token) for token in tokens.named.values()}
    ready = [AddedToken(token, special=True) if isinstance(token, str) else token for token in new]
    for token in ready:
        token.special = token.special or token.content in names
    hf.add_tokens(ready)
    return bool(ready)


def _token(key: str, value: object) -> AddedToken:
    """Returns the added token that a JSON object describes."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or not value["content"]:
        raise DataError(f"{key} has {value!r}, which must be an object with content")
    flags = {name: value[name] for name in _FLAGS if value.get(name) is not None}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise DataError(f"{key} has {value!r}, in which {', '.join(flags)} must be true or false")
    return AddedToken(value["content"], **flags)


def _object(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(config[key], dict):
        raise DataError(f"{key}={config[key]!r} must be an object")
    return config[key]


def _flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """Returns a flag, the default if it is missing or null."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{key}={value!r} must be true or false")
    return default if value is None else value


def _stop_tokens(folder: Path, model: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the ids that end a text: those of generation_config.json, else those of config.json."""
    generation = read_object(folder / GENERATION_FILE)
    where, settings = (GENERATION_FILE, generation) if "eos_token_id" in generation else (_MODEL_FILE, model)
    found = settings.get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise DataError(f"{folder / where}: eos_token_id={found!r} must be a token id, or a list of them")
    return tuple(ids)


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the chat templates by name: those in files of their own, else those in tokenizer_config.json."""
    places = {path.stem: path for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))}
    found = {name: _read_text(path) for name, path in {"default": folder / TEMPLATE_FILE, **places}.items()}
    if templates := {name: text for name, text in found.items() if text is not None}:
        return templates
    given = config.get("chat_template")
    if given is None or isinstance(given, str):
        return {} if given is None else {"default": given}
    if isinstance(given, list):
        given = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, dict)}
    if not isinstance(given, dict) or not all(isinstance(word, str) for entry in given.items() for word in entry):
        raise DataError(f"{folder / CONFIG_FILE}: chat_template must be a text, or a list of names and templates")
    return given


def _read_text(path: Path) -> str | None:
    """Returns the text of a file, None if there is none."""
    try:
        return files.read_text(path, _MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {files.reason(error)}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file, empty if there is no such file. Raises `DataError`."""
    text = _read_text(path)
    try:
        content = dict[str, Any]() if text is None else files.parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold a JSON object")
    return content
