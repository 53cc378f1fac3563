"""Operators of our own: known to torch.compile, and called without importing torch's compiler."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys, torch
from lmzoo.ops.operator import operator

@operator("test_double")
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x

torch.library.register_fake("lmzoo::test_double")(torch.empty_like)
torch.library.register_autograd("lmzoo::test_double", lambda ctx, grad: 2 * grad)
x = torch.ones(3, requires_grad=True)
torch.ops.lmzoo.test_double(x).sum().backward()
print(x.grad.tolist(), "torch._dynamo" in sys.modules)
compiled = torch.compile(torch.ops.lmzoo.test_double, backend="eager", fullgraph=True)
print(compiled(x).tolist())
"""


def test_operator_has_a_gradient_and_is_captured_but_does_not_import_the_compiler() -> None:
    run = subprocess.run([sys.executable, "-c", _CODE], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["[2.0, 2.0, 2.0] False", "[2.0, 2.0, 2.0]"]
