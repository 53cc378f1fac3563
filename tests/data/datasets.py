"""Datasets in files, shared by the tests of streams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

TEXTS = [f"Text {i}: " + "说 the cat sat. " * (i % 7) for i in range(60)]


def jsonl(texts: Sequence[Any], column: str = "text", **more: object) -> str:
    return "".join(json.dumps({column: text, **more}) + "\n" for text in texts)


def parquet(path: Path, columns: dict[str, list[Any]], rows: int = 7) -> Path:
    """A file with `rows` rows in a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return path
