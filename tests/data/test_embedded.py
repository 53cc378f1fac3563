"""Tests of the embedded corpora: they depend only on the Python version, are cached, and checked on every use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lmzoo.data.corpora import Corpus, load_corpus
from lmzoo.data.overlap import measure_overlap

_SHOW = "from lmzoo.data import load_corpus; print(load_corpus('pydocs').sha256)"


def _hash_of_pydocs(env: dict[str, str], tmp_path: Path, seed: str) -> str:
    own = {"PYTHONHASHSEED": seed, "LMZOO_CACHE": str(tmp_path / seed), "LC_ALL": "C"}
    command = [sys.executable, "-c", _SHOW]
    return subprocess.run(command, env={**env, **own}, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def test_pydocs_is_one_text_for_a_python_version(process_env: dict[str, str], tmp_path: Path) -> None:
    # A local module that shadows a standard module must not change the text.
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "wave.py").write_text('"""Not the library."""')
    shadowed = {**process_env, "PYTHONPATH": f"{shadow}:{process_env['PYTHONPATH']}"}
    first = _hash_of_pydocs(process_env, tmp_path, "1")
    assert len(first.strip()) == 64
    assert _hash_of_pydocs(shadowed, tmp_path, "2") == first


def test_pydocs_is_clean_prose() -> None:
    corpus = load_corpus("pydocs")
    text = "".join(corpus.chunks())
    assert 1_500_000 < corpus.n_chars < 2_500_000
    assert corpus.val.n_documents > 500
    assert len(set(text)) < 200
    assert "Assignment statements\n" in text  # a topic of the manual
    assert "Return the number of non-overlapping occurrences" in text  # a method's docstring
    # A char tokenizer trained on the training split must be able to encode the validation split.
    assert set("".join(corpus.chunks("val"))) <= set("".join(corpus.chunks("train")))
    _require_clean_split(corpus)


def _require_clean_split(corpus: Corpus) -> None:
    share = measure_overlap(corpus).share
    assert share is not None
    assert share < 0.01
    for split in (corpus.train, corpus.val):
        assert split.n_documents > 20
        assert "".join(split.chunks()).strip() == "".join(split.chunks())  # no document is cut
    assert 0.88 < corpus.train.n_bytes / corpus.n_bytes < 0.92


def test_pycode_is_source_and_its_cache_is_checked(cache: Path) -> None:
    corpus = load_corpus("pycode")
    assert corpus.n_bytes > 4_000_000
    text = "".join(corpus.chunks())
    assert "class OrderedDict(dict):" in text
    assert set("".join(corpus.chunks("val"))) <= set("".join(corpus.chunks("train")))

    _require_clean_split(corpus)

    (file,) = (cache / "corpora").glob("pycode*.txt")
    written = file.stat().st_mtime_ns
    assert load_corpus("pycode").sha256 == corpus.sha256
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes().replace(b"return", b"RETURN", 1))
    assert load_corpus("pycode").sha256 == corpus.sha256
    index = file.with_suffix(".json")
    index.write_text(index.read_text(encoding="ascii").replace('"documents": [', '"documents": [7, '), encoding="ascii")
    assert load_corpus("pycode") == corpus
