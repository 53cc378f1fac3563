"""Tests of the embedded corpora: they depend only on the Python version, are cached, and checked on every use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmzoo.data import embedded
from lmzoo.data.corpora import Corpus, load_corpus
from lmzoo.data.overlap import measure_overlap

_SHOW = "from lmzoo.data import load_corpus; print(load_corpus('pydocs').sha256)"


@pytest.fixture(scope="module")
def pydocs(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Built once: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMZOO_CACHE", str(tmp_path_factory.mktemp("pydocs")))
        return load_corpus("pydocs")


def test_pydocs_is_one_text_for_a_python_version(pydocs: Corpus, process_env: dict[str, str], tmp_path: Path) -> None:
    """The same in a process with other hashes, locale and folder, and with a module that shadows a standard one."""
    (tmp_path / "wave.py").write_text('"""Not the library."""')
    own = {"PYTHONPATH": f"{tmp_path}:{process_env['PYTHONPATH']}", "LMZOO_CACHE": str(tmp_path / "2"), "LC_ALL": "C"}
    seed = "2" if os.environ.get("PYTHONHASHSEED") != "2" else "3"
    environment = {**process_env, **own, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", _SHOW]
    shown = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.strip() == pydocs.sha256


def test_pydocs_is_clean_prose(pydocs: Corpus) -> None:
    text = "".join(pydocs.chunks())
    assert 1_500_000 < pydocs.n_chars < 2_500_000
    assert pydocs.val.n_documents > 500
    assert len(set(text)) < 200
    assert "Assignment statements\n" in text  # a topic of the manual
    assert "Return the number of non-overlapping occurrences" in text  # a method's docstring
    # A char tokenizer trained on the training split must be able to encode the validation split.
    assert set("".join(pydocs.chunks("val"))) <= set("".join(pydocs.chunks("train")))
    _require_clean_split(pydocs)


def _require_clean_split(corpus: Corpus) -> None:
    share = measure_overlap(corpus).share
    assert share is not None
    assert share < 0.01
    for split in (corpus.train, corpus.val):
        assert split.n_documents > 20
        assert "".join(split.chunks()).strip() == "".join(split.chunks())  # no document is cut
    assert 0.88 < corpus.train.n_bytes / corpus.n_bytes < 0.92


def test_pycode_is_source() -> None:
    corpus = load_corpus("pycode")
    assert corpus.n_bytes > 4_000_000
    text = "".join(corpus.chunks())
    assert "class OrderedDict(dict):" in text
    assert set("".join(corpus.chunks("val"))) <= set("".join(corpus.chunks("train")))
    _require_clean_split(corpus)


def test_embedded_checks_its_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file is built again; from a few documents, because the corpus takes seconds."""
    monkeypatch.setattr(embedded, "_code", lambda: iter(f"def f{i}(x):\n    return {i} * x\n" for i in range(40)))
    corpus = load_corpus("pycode")
    (file,) = (cache / "corpora").glob("pycode*.txt")
    written = file.stat().st_mtime_ns
    assert load_corpus("pycode") == corpus
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes().replace(b"return", b"RETURN", 1))
    assert load_corpus("pycode").sha256 == corpus.sha256
    index = file.with_suffix(".json")
    index.write_text(index.read_text(encoding="ascii").replace('"documents": [', '"documents": [7, '), encoding="ascii")
    assert load_corpus("pycode") == corpus
