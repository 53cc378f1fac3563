"""Tests the BibTeX of compared models, and that each family of the registry has its papers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lmzoo import entries, registry
from lmzoo.compare.papers import bibtex
from tests.cases import each_case
from tests.compare.example import everything, example, model

ROOT = Path(__file__).parents[2]
FAMILIES = entries.read((ROOT / "registry",))
ENTRY = re.compile(r"@(\w+)\{([a-z]+\d{4}\w*),\n((?:  \w+ = \{.*\},\n)+)\}\n", re.MULTILINE)


def test_bibtex_has_each_paper_once_in_the_order_of_the_table() -> None:
    names = ("gpt2.tiny", "runs/mamba,seed=7", "gpt2.1m", "mine")
    models = [model(name, 1.5 + number / 10) for number, name in enumerate(names)]
    found = bibtex(dataclasses.replace(example(), models=models))
    assert re.findall(r"^@\w+\{(\S+),", found, re.MULTILINE) == ["radford2019gpt2", "gu2023mamba"]
    assert found.startswith(registry.families()["gpt2"].papers)
    finished = dataclasses.replace(example(), models=[model("experiments/first", 1.5, run="runs/mamba.tiny")])
    assert "gu2023mamba" in bibtex(finished)
    assert bibtex(example()) == ""


def test_bibtex_names_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    family = tmp_path / "gpt2"
    family.mkdir()
    (family / "papers.bib").write_bytes(b"\xff")
    broken = dataclasses.replace(registry.families()["gpt2"], folder=family)
    monkeypatch.setattr(registry, "families", lambda: {**FAMILIES, "gpt2": broken})
    found = bibtex(everything())
    assert re.match(r"% .*papers.bib: not UTF-8 at byte offset 0\n\n@misc\{gu2023mamba,", found)


@each_case("name", FAMILIES)
def test_bibtex_of_each_family_has_the_papers_of_its_facts(name: str) -> None:
    family = FAMILIES[name]
    assert "".join(match[0] + "\n" for match in ENTRY.finditer(family.papers)).rstrip() == family.papers.rstrip()
    for match in ENTRY.finditer(family.papers):
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", match[3], re.MULTILINE))
        assert {"author", "title", "year"} <= fields.keys()
        assert fields["year"] in match[2]
        assert fields.get("archiveprefix", "arXiv") == "arXiv"
        assert "eprint" not in fields or fields["year"] == f"20{fields['eprint'][:2]}"
    eprints = set(re.findall(r"^  eprint = \{(.*)\}", family.papers, re.MULTILINE))
    assert eprints == set(re.findall(r"\d{4}\.\d{4,5}", str(family.facts["paper"])))


def test_bibtex_keys_stand_for_one_paper() -> None:
    found: dict[str, str] = {}
    for family in FAMILIES.values():
        for match in ENTRY.finditer(family.papers):
            assert found.setdefault(match[2], match[0]) == match[0]
