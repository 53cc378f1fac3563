"""Tests the measurement of the loss, plain and in chunks, in both precisions."""

from __future__ import annotations

import pytest

from lmzoo.bench.loss import bench_loss


def test_bench_loss_measures_both_ways_in_both_precisions() -> None:
    result = bench_loss(vocab_size=50, tokens=16, d_model=8, repeats=1)
    assert (result["vocab_size"], result["tokens"], result["d_model"]) == (50, 16, 8)
    assert list(result["results"]) == ["float32", "bf16"]
    for found in result["results"].values():
        assert found["time_ratio"] == pytest.approx(found["seconds"]["chunked"] / found["seconds"]["plain"])
