"""Tests the command transplant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.data.tokenizers import ByteTokenizer
from lmzoo.registry import create_model
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.runs.saved import load_run
from lmzoo.skeleton import skeleton
from lmzoo.storage.models import load_model
from tests.cli.commands import QUICK, Command


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 16}
    create_model("llama", vocab_size=256, **sizes).save(tmp_path / "llama", tokenizer=ByteTokenizer())
    return tmp_path / "llama"


def test_transplant_makes_a_model_that_is_evaluated_sampled_and_trained(
    lmzoo: Command, llama: Path, text: Path
) -> None:
    mixed = text.parent / "mixed"
    result = lmzoo("transplant", llama, mixed, "--layers", "1", "--to", "gated_deltanet")
    assert result.code == 0, result.err
    assert "layer 1: Attention -> GatedDelta takes over q, k, v, out\n" in result.out
    assert "taken over" in result.out
    assert f"try: lmzoo train --from {mixed} --teacher {llama}\n" in result.out
    model, tokenizer, _ = load_run(mixed)
    assert tokenizer.sha256 == load_run(llama).tokenizer.sha256
    assert model.config.mixers == "kept gated_deltanet"
    assert lmzoo("eval", mixed, "--data", text).code == 0
    assert lmzoo("sample", mixed, "-n", "5").code == 0
    shown = lmzoo("transplant", mixed, text.parent / "more", "--set", "window=8", "--json")
    found = json.loads(shown.out)
    assert (found["model"], found["replaced"], found["new"]) == ("llama-transplant", [], 0)
    assert found["path"] == str(text.parent / "more")
    healed = text.parent / "healed"
    options = ["--data", text, "--out", healed, "--set", "teacher.weight=0.5", *QUICK]
    result = lmzoo("train", mixed, "--from", mixed, "--teacher", llama, *options)
    assert result.code == 0, result.err
    assert load_run(healed).tables["teacher"]["weight"] == 0.5


def test_transplant_saves_a_model_without_its_tokenizer_if_it_has_none(lmzoo: Command, llama: Path) -> None:
    bare, mixed = llama.parent / "bare", llama.parent / "mixed"
    load_model(llama).save(bare)
    assert lmzoo("transplant", bare, mixed, "--layers", "0", "--to", "gla").code == 0
    assert not (mixed / "tokenizer.json").exists()
    again = llama.parent / "again"
    assert lmzoo("transplant", bare, again, "--layers", "0", "--to", "gla", "--tokenizer", llama).code == 0
    assert (again / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "2", "--to", "gla"], "layers: 2 must be in [0, 1]: llama has 2 layers"),
        (["--layers", "x", "--to", "gla"], "--layers 'x': 'x' must be the number of a layer, as in 3,5,7"),
        (["--layers", "1,", "--to", "gla"], "--layers '1,': '' must be the number of a layer, as in 3,5,7"),
        (["--layers", "1", "--to", "gal"], "model 'gal' is unknown; did you mean 'gla'?"),
        (["--layers", "1"], "layers and to belong together"),
        ([], "nothing to change"),
        (["--set", "d_ff=8"], "d_ff=8 cannot be set in a trained model: it changes the shape of"),
    ],
)
def test_transplant_refuses_in_one_line(lmzoo: Command, llama: Path, options: list[str], message: str) -> None:
    target = llama.parent / "mixed"
    result = lmzoo("transplant", llama, target, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("lmzoo: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not target.exists()


def test_transplant_proposes_a_command_with_its_plug_ins(lmzoo: Command, llama: Path, text: Path) -> None:
    file, mixed = text.parent / "own_mixer.py", text.parent / "mixed"
    file.write_text(skeleton("own-mixer", file.name))
    result = lmzoo("transplant", llama, mixed, "--layers", "0", "--to", "own-mixer", "--plugin", file)
    assert f"try: lmzoo train --from {mixed} --teacher {llama} --plugin {file}\n" in result.out, result.err


def test_transplant_refuses_places(lmzoo: Command, llama: Path) -> None:
    for source, target, message in (
        (llama, llama.parent, f"DST={llama.parent} exists: name a new folder"),
        (llama.parent / "nothing", llama.parent / "mixed", "nothing"),
    ):
        result = lmzoo("transplant", source, target, "--layers", "0", "--to", "gla")
        assert result.code == 2
        assert message in result.err


def test_transplant_proposes_the_text_of_the_run(
    lmzoo: Command, tmp_path: Path, small_spec: Callable[..., RunSpec]
) -> None:
    """Without it, the model would be healed on the default text, which may need a tokenizer of its own."""
    spec = small_spec()
    train_run(spec, tmp_path / "run")
    result = lmzoo("transplant", tmp_path / "run", tmp_path / "mixed", "--layers", "0", "--to", "fox")
    assert f"--teacher {tmp_path / 'run'} --data {spec.data}\n" in result.out, result
