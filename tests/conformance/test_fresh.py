"""The process that `save_and_load` starts."""

from __future__ import annotations

from pathlib import Path

from lmzoo.conformance import subject
from lmzoo.conformance.fresh import answer_all
from lmzoo.conformance.saving import require_loaded, save_request
from tests.museum.base import Transformer


def test_answer_all_continues_after_an_error(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for path in (good, bad):
        path.mkdir()
        logits_BTV = save_request(subject(Transformer), path)
    (bad / "request.json").write_text("{}")
    answer_all([bad, good])
    assert (bad / "error.txt").read_text() == "KeyError: 'threads'"
    require_loaded(good, logits_BTV)
