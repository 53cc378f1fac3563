"""Tests of tab completion: the script, and what is completed."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from lmzoo.cli import cli
from tests.cli.commands import Command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(lmzoo: Command, shell: str) -> None:
    assert "_LMZOO_COMPLETE" in lmzoo("completion", shell).out


SHELL = ShellComplete(cli, {}, "lmzoo", "_LMZOO_COMPLETE")


def completed(words: list[str], incomplete: str) -> list[str]:
    return [item.value for item in SHELL.get_completions(words, incomplete)]


def test_complete_models_gives_names_or_files() -> None:
    assert completed(["train"], "gpt2.1") == ["gpt2.10m", "gpt2.124m", "gpt2.1m"]
    assert completed(["compare", "bigram"], "ml") == ["mlp", "mlp.10m", "mlp.1m", "mlp.tiny"]
    assert completed(["check"], "deltanet.t") == completed(["show"], "deltanet.t") == ["deltanet.tiny"]
    item = SHELL.get_completions(["train"], "my_mo")[0]
    assert (item.value, item.type) == ("my_mo", "file")


def test_complete_data_gives_corpora() -> None:
    for command in (["train", "gpt2"], ["compare", "gpt2"], ["eval", "run"]):
        assert completed([*command, "--data"], "pyd") == ["pydocs"]


def test_complete_settings_gives_those_of_the_model_and_the_training() -> None:
    assert completed(["train", "llama", "--set"], "w") == ["warmup_steps=", "weight_decay=", "window="]
    assert completed(["compare", "gpt2", "mamba", "--set"], "d_") == ["d_conv=", "d_ff=", "d_model=", "d_state="]
    assert completed(["bench", "train", "mamba", "--set"], "d_s") == ["d_state="]
    assert completed(["train", "nothing", "--set"], "wi") == []


def test_complete_checks_gives_names_of_checks() -> None:
    assert completed(["check", "gpt2", "--only"], "meta") == ["meta_device"]


def test_complete_tune_gives_settings_that_can_be_searched() -> None:
    assert completed(["compare", "gpt2", "--tune"], "") == ["learning_rate", "min_learning_rate", "warmup_steps"]
    assert completed(["compare", "gpt2", "--tune"], "learning_rate,w") == ["learning_rate,warmup_steps"]
