"""The target of `lmzoo check`: a name, a file that registers models, or a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import lmzoo
from lmzoo.conformance.target import subjects
from lmzoo.errors import ConfigError, LmzooError, UnknownModelError


def test_subjects_takes_a_registered_name() -> None:
    assert subjects("gpt2.124m") == ["gpt2.124m"]
    with pytest.raises(UnknownModelError, match="gpt2"):
        subjects("gtp2")


def test_subjects_takes_a_file_that_registers_models(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    code = "import lmzoo\nfrom lmzoo.backbones.bigram import Bigram\n"
    for name in ("first", "second"):
        code += f"\n@lmzoo.register_model('subjects-{name}')\nclass {name.title()}(Bigram):\n    pass\n"
    file.write_text(code)
    try:
        assert subjects(str(file)) == ["subjects-first", "subjects-second"]
    finally:
        for name in ("first", "second"):
            lmzoo.registry._classes.pop(f"subjects-{name}", None)
    (tmp_path / "none.py").write_text("")
    with pytest.raises(ConfigError, match="registers no model"):
        subjects(str(tmp_path / "none.py"))


def test_subjects_takes_a_folder_with_a_model(tmp_path: Path) -> None:
    lmzoo.create_model("bigram", vocab_size=5).save(tmp_path / "model")
    (model,) = subjects(str(tmp_path / "model"))
    assert isinstance(model, lmzoo.LanguageModel)
    assert model.config.vocab_size == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(LmzooError):
        subjects(str(tmp_path / "empty"))
