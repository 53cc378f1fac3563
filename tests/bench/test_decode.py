"""Tests the measurement of decoding speed: complete and plausible results."""

from __future__ import annotations

import json
import time

import pytest
import torch

import lmzoo
from lmzoo import bench

SIZES = {"vocab_size": 65, "d_model": 32, "n_layers": 1, "context_length": 32}


def test_bench_decode_measures_a_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.compile  # with the eager backend: what is compiled is tested in tests/inference/test_compiled.py
    monkeypatch.setattr(torch, "compile", lambda step, **options: whole(step, backend="eager", fullgraph=True))
    model = lmzoo.create_model("gpt2", **SIZES).eval()
    peers = {"sleeper": lambda: time.sleep(0.05)}
    result = bench.bench_decode(model, rows=2, tokens=4, repeats=1, bandwidth_bytes=1 << 20, peers=peers)
    json.dumps(result)  # plain values alone
    forms = {entry["form"]: entry for entry in result["results"]}
    assert list(forms) == ["float32", "bfloat16 packed", "int8 packed", "bfloat16 compiled", "sleeper"]
    for entry in forms.values():
        assert entry["tokens_per_s"] == pytest.approx(2 / (entry["ms_per_step"] / 1e3))
    assert forms["sleeper"]["ms_per_step"] >= 12.5
    assert "weight_bytes" not in forms["sleeper"]
    assert forms["float32"]["weight_bytes"] > 1.9 * forms["bfloat16 packed"]["weight_bytes"]
    assert forms["float32"]["loss_above"] == 0.0
    assert 0 < abs(forms["int8 packed"]["loss_above"]) < 0.02
    assert 0 < result["sampler"]["share"] < 1
    assert result["latency"] is None  # its state grows
    assert "sleeper" in bench.summary(result)


def test_bench_decode_makes_no_copies_of_a_model_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *given, **options: pytest.fail("it takes minutes"))
    model = lmzoo.create_model("ngram.tiny", vocab_size=65).eval()
    result = bench.bench_decode(model, tokens=4, repeats=1, bandwidth_bytes=1 << 20)
    assert [(entry["form"], entry["weight_bytes"]) for entry in result["results"]] == [("float32", 0)]
    assert "no copies for decoding: the model has no weights" in bench.summary(result)


def test_latency_measures_a_constant_state() -> None:
    near, far = bench.latency(lmzoo.create_model("lstm", **SIZES).eval(), positions=(8, 600), steps=3)
    assert (near["position"], far["position"]) == (8, 600)
    assert near["state_bytes"] == far["state_bytes"] > 0
    assert near["ms_per_step"] > 0
