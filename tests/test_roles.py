"""The roles of parameters: one list for layers and models, and the documents."""

from __future__ import annotations

from pathlib import Path

import lmzoo.model
from lmzoo.roles import ROLES

CONTRACT = Path(__file__).parent.parent / "docs" / "contract.md"


def test_roles_are_those_that_the_contract_describes() -> None:
    rows = {f"| `{role}` | {meaning} |" for role, meaning in ROLES.items()}
    assert rows <= {*CONTRACT.read_text(encoding="utf-8").splitlines()}
    assert lmzoo.model.ROLES is ROLES
