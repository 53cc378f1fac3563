"""Tests of the file that `lmzoo new` writes; tests/cli/test_new.py checks the model in it."""

from __future__ import annotations

import pytest

from lmzoo.skeleton import file_name, skeleton


@pytest.mark.parametrize(
    ("name", "file", "class_name"),
    [("my-mixer", "my_mixer.py", "MyMixer"), ("2d", "2d.py", "Model2d"), ("a_b-", "a_b_.py", "AB")],
)
def test_skeleton_is_python_for_every_name(name: str, file: str, class_name: str) -> None:
    text = skeleton(name, file)
    compile(text, file, "exec")
    assert file_name(name) == file
    assert f'@lmzoo.register_model("{name}", presets=PRESETS)\nclass {class_name}(lmzoo.MixerModel):' in text
    assert not {"CLASS", "NAME", "FILE"} & set(text.replace(".", " ").replace('"', " ").split())
