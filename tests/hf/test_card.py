"""Tests of the model card: metadata in YAML, how to load the model, and no markup in texts from outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

import lmzoo
from lmzoo.hf.card import model_card, text
from lmzoo.runs.facts import RunFacts
from tests.helpers import SMALL, registered_names_restored

FACTS = RunFacts(
    model="llama.tiny",
    train={"steps": 40, "learning_rate": 0.01, "min_learning_rate": None},
    data="tinyshakespeare",
    on_hub=False,
    corpus_sha256="ab12",
    tokenizer="char",
    step=20,
    tokens=5120,
    loss=1.23456,
    bits_per_byte=1.78,
)


def parts(card: str) -> tuple[dict[str, Any], str]:
    """Returns the metadata and the text of a card."""
    before, metadata, body = card.split("---\n", 2)
    assert before == ""
    return yaml.safe_load(metadata), body


@pytest.fixture
def model() -> lmzoo.LanguageModel:
    return lmzoo.create_model("llama", vocab_size=11, device="meta", **SMALL)


def test_model_card_of_a_model_alone(model: lmzoo.LanguageModel) -> None:
    metadata, body = parts(model_card(model, "llama", with_tokenizer=False))
    assert metadata == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["lmzoo", "llama"]}
    assert body.startswith("\n# llama\n\nA language model of the family Llama with 4,496 parameters, made with")
    assert 'model = AutoModelForCausalLM.from_pretrained("PATH")' in body
    assert 'model = lmzoo.load_model("PATH")' in body
    assert "tokenizer = " not in body
    assert "**The idea.** A transformer like GPT-2" in body
    assert "| `n_layers` | 1 |" in body
    assert "## Training" not in body


def test_model_card_of_a_run_has_its_training_and_results(model: lmzoo.LanguageModel) -> None:
    metadata, body = parts(model_card(model, "mistral", facts=FACTS, license="apache-2.0", left_out={"dropout": 0.1}))
    assert metadata["license"] == "apache-2.0"
    assert metadata["tags"] == ["lmzoo", "llama", "mistral"]
    assert metadata["datasets"] == ["tinyshakespeare"]
    for line in (
        "# llama.tiny",
        'tokenizer = AutoTokenizer.from_pretrained("PATH")',
        "| `learning_rate` | 0.01 |",
        "| `min_learning_rate` | none |",
        "| training steps | 20 |",
        "| training tokens | 5,120 |",
        "| validation loss (nats per token) | 1.2346 |",
        "| bits per byte | 1.7800 |",
        "| `dropout` | 0.1 |",
    ):
        assert line in body.splitlines(), line
    assert "Trained on tinyshakespeare (SHA-256 `ab12`) with the tokenizer char" in body
    own = model_card(model, "lmzoo", facts=replace(FACTS, data="", loss=None, bits_per_byte=None, tokens=None))
    metadata, body = parts(own)
    assert (metadata["library_name"], "datasets" in metadata) == ("lmzoo", False)
    assert "Trained on a text of its own" in body
    assert "AutoModel" not in body
    assert "validation loss" not in body


def test_model_card_escapes_what_comes_from_outside(model: lmzoo.LanguageModel) -> None:
    evil = 'x"\n---\n- [a](http://b) <script>|`\u202e'
    facts = replace(FACTS, model=evil, data=evil, tokenizer=evil, corpus_sha256=evil, train={evil: evil})
    metadata, body = parts(model_card(model, "llama", facts=facts, license=evil))
    shown = 'x"\\n---\\n- [a](http://b) <script>|`\\u202e'  # as humanize.line writes control characters
    assert metadata["datasets"] == [shown]
    assert metadata["license"] == shown
    assert "\n---" not in body.replace("\n|---", "")
    for markup in ("<script>", "[a](", "\u202e"):
        assert markup not in body.replace("\\<script", "").replace("\\[a", ""), markup
    assert r"\[a\](http://b) \<script\>\|\`" in body


def test_model_card_shows_no_html_of_a_plug_in() -> None:
    with registered_names_restored():

        @lmzoo.register_model("card-test")
        class CardTest(type(lmzoo.create_model("bigram", vocab_size=5))):  # type: ignore[misc]
            """A model <script>alert(1)</script> where 1 < 2."""

        card = model_card(lmzoo.create_model("card-test", vocab_size=5), "lmzoo")
    assert r"A model \<script>alert(1)\</script> where 1 < 2." in card


def test_text_is_one_line_of_markdown() -> None:
    assert text("a_b|c`d*\n<e>") == r"a\_b\|c\`d\*\\n\<e\>"
