"""The model card of an exported model: README.md with metadata for the Hugging Face hub.

Names and settings come from files, so they are escaped: in YAML as quoted strings, in Markdown with backslashes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmzoo import configs, humanize, registry
from lmzoo.hf.own import MODEL_TYPE

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel
    from lmzoo.runs.facts import RunFacts

CARD_FILE = "README.md"
_LOAD = {
    False: """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
""",
    True: """import lmzoo

model = lmzoo.load_model("PATH")
tokenizer = lmzoo.load_tokenizer("PATH")
""",
}


def model_card(
    model: LanguageModel,
    model_type: str,
    *,
    facts: RunFacts | None = None,
    license: str | None = None,
    left_out: Mapping[str, Any] | None = None,
    with_tokenizer: bool = True,
) -> str:
    """Returns the text of README.md; `facts` are those of the run that trained the model.

    `left_out` are settings that have no key in the config.json of this `model_type`.
    """
    entry = registry.families().get(model.family)
    title = str(entry.facts.get("title", "")) if entry else ""
    name = (facts.model if facts else "") or model.family
    parts = [
        _metadata(model, model_type, facts, license),
        f"# {text(name)}",
        f"A language model of the family {text(title or model.family)} with {model.num_params():,} parameters, made "
        "with lmzoo, a zoo of language-model architectures.",
        "## Load",
        *(_code(own, with_tokenizer) for own in ((True,) if model_type == MODEL_TYPE else (False, True))),
        *(["## Architecture", idea] if (idea := _idea(entry.card if entry else "")) else []),
        "## Configuration",
        _table(configs.to_dict(model.config)),
        *(["Not in config.json, as it has no effect on a trained model:", _table(left_out)] if left_out else []),
        *(_of_run(facts) if facts else []),
    ]
    return "\n\n".join(parts) + "\n"


def text(value: object) -> str:
    """Returns a text from outside as one line of Markdown that shows its characters."""
    return re.sub(r"([\\`*_\[\]<>|&~])", r"\\\1", humanize.line(str(value)))


def _metadata(model: LanguageModel, model_type: str, facts: RunFacts | None, licensed: str | None) -> str:
    """Returns the YAML between the lines of dashes."""
    lines = [f"library_name: {'lmzoo' if model_type == MODEL_TYPE else 'transformers'}"]
    if licensed is not None:
        lines.append(f"license: {_quoted(licensed)}")
    lines += ["pipeline_tag: text-generation", "tags:"]
    lines += [f"- {_quoted(tag)}" for tag in dict.fromkeys(("lmzoo", model.family, model_type))]
    if facts is not None and facts.data:
        lines += ["datasets:", f"- {_quoted(facts.data)}"]
    return "\n".join(["---", *lines, "---"])


def _quoted(value: str) -> str:
    """Returns a YAML string: the quoted strings of JSON are strings of YAML."""
    return json.dumps(humanize.line(value))


def _code(own: bool, with_tokenizer: bool) -> str:
    lines = _LOAD[own].splitlines()
    kept = [line for line in lines if with_tokenizer or not line.startswith("tokenizer")]
    return "\n".join(["```python", *kept, "```"])


def _idea(card: str) -> str:
    """Returns the first paragraph of a family's card below its title, without raw HTML."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", card)]
    first = next((part for part in paragraphs if part and not part.startswith("#")), "")
    return re.sub(r"<(?=[A-Za-z/!])", r"\\<", first)


def _of_run(facts: RunFacts) -> list[str]:
    """Returns the sections about the training and its results."""
    data = text(facts.data) if facts.data else "a text of its own"
    results = {
        "training steps": f"{facts.step:,}",
        "training tokens": None if facts.tokens is None else f"{facts.tokens:,}",
        "validation loss (nats per token)": _figure(facts.loss),
        "bits per byte": _figure(facts.bits_per_byte),
    }
    return [
        "## Training",
        f"Trained on {data} (SHA-256 `{re.sub(r'[^0-9a-f]', '', facts.corpus_sha256)}`) with the tokenizer "
        f"{text(facts.tokenizer)}, and these settings:",
        _table(facts.train),
        "## Results",
        _table({name: value for name, value in results.items() if value is not None}, heading="result"),
    ]


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _table(values: Mapping[str, Any], heading: str = "setting") -> str:
    names = {name: f"`{name}`" if name.isidentifier() else text(name) for name in values}
    rows = [f"| {names[name]} | {text('none' if value is None else value)} |" for name, value in values.items()]
    return "\n".join([f"| {heading} | value |", "|---|---|", *rows])
