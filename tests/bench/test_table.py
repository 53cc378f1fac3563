"""Tests the tables of `lmzoo bench`: every figure is shown, within 80 columns."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from lmzoo.bench.steps import PHASES
from lmzoo.bench.table import loss_table, ops_tables, train_tables


def shown(what: Any) -> str:
    output = io.StringIO()
    Console(file=output, width=80).print(what)
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return text


def entry(name: str, share: float, error: float | None, peak: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "ms_per_step": 12.34,
        "tokens_per_s": 1234.5,
        "utilisation": 0.3,
        "phases": dict.fromkeys(PHASES, 1 / len(PHASES)),
        "trainer_share": share,
        "trainer_share_error": error,
        "peak_bytes": peak,
    }


def test_train_tables_show_every_figure() -> None:
    peer = {"name": "transformers float32", "ms_per_step": 1.0, "tokens_per_s": 16.0}
    result = {
        "params": 112_640,
        "batch_size": 2,
        "context_length": 8,
        "matrix_flops_per_s": {"float32": 123.4e9, "bf16": 1e12},
        "auto": "bf16",
        "compile": True,
        "gradient_checkpointing": False,
        "results": [entry("float32", 0.1234, 0.2345, 5 << 20), entry("bf16", -0.0991, 0.0989, None), peer],
        "machine": {"threads": 2},
    }
    text = shown(train_tables("gpt2.tiny", result))
    for word in ("gpt2.tiny: 113 k parameters, 2 x 8 tokens a step, 2 threads, compile", "float32 123 GFLOP/s"):
        assert word in text
    for word in ("+12 ±23%", "-9.9 ±9.9%", "5.24 MB", "transformers float32", "optimizer", "30.0%", "1,234"):
        assert word in text
    alone = {**result, "results": [entry("float32", 0.05, None, None)]}
    assert "+5.0%" in shown(train_tables("gpt2.tiny", alone)), "without an error below four repeats"


def test_loss_table_shows_ratios_of_the_loss_in_chunks() -> None:
    found = {
        "seconds": {"plain": 1.0, "chunked": 0.9},
        "peak_bytes": {"plain": 2e9, "chunked": None},
        "time_ratio": 0.9,
        "memory_ratio": None,
    }
    sizes = {"vocab_size": 50257, "tokens": 8192, "d_model": 768}
    text = shown(loss_table({**sizes, "results": {"bf16": found}, "machine": {"threads": 2}}))
    assert "50,257 tokens, 8,192 positions, 768 wide" in text
    assert "bf16 chunked" in text
    assert "0.90" in text
    assert "2.00 GB" in text
    assert text.count("–") >= 2, "not measured"


def test_ops_tables_show_every_figure() -> None:
    times = {"naive_ms": 12345.678, "fast_ms": 1234.5678, "kernel_ms": None, "slowdown": 1.0}
    why = "T >= 16: fewer steps, or cheaper ones"
    entries = [
        {"op": op, "T": T, **times, "form": f"chunked_{op}", "why": why}
        for op in ("gated_linear_attention", "delta_rule")
        for T in (1, 2048)
    ]
    machine = {"device": "a CPU", "threads": 2}
    result = {"rows": 8, "precision": "float32", "results": entries, "machine": machine}
    text = shown(ops_tables("mamba", result, 80))
    assert text.count("12,345.68") == text.count("1,234.57") == text.count("10.00") == 4
    assert text.count("chunked_delta_rule") == text.count("2,048") == 2
    assert "8 rows, forward and backward, float32" in text
    assert "kernel" not in text
    entries[0]["kernel_ms"] = 77.654
    text = shown(ops_tables("mamba", {**result, "precision": "bf16"}, 160))
    assert text.count("kernel, ms") == 2
    assert text.count("77.65") == 1
    assert text.count("–") == 3
    assert "forward and backward, bf16" in text


def test_ops_tables_mark_a_definition_that_was_not_run() -> None:
    times = {"naive_ms": None, "fast_ms": 5.0, "kernel_ms": None, "slowdown": 1.0}
    entry = {"op": "path_attention", "T": 2048, **times, "form": "chunked_path_attention", "why": "T >= 2"}
    result = {"rows": 8, "precision": "float32", "results": [entry], "machine": {"device": "a CPU", "threads": 2}}
    assert shown(ops_tables("path_attention", result, 80)).count("–") == 2
