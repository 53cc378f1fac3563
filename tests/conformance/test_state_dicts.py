"""State dicts in which a shared tensor has one name."""

from __future__ import annotations

import torch

from lmzoo.conformance.state_dicts import each_once


def test_each_once_has_a_shared_tensor_once_and_each_tensor_without_values() -> None:
    module = torch.nn.Module()
    module.first = module.second = torch.nn.Parameter(torch.ones(2))
    for name in ("none", "nothing"):
        module.register_buffer(name, torch.zeros(0))
    assert list(each_once(module)) == ["first", "none", "nothing"]
