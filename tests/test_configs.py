"""Tests settings: built, checked, overridden and written as TOML."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmzoo import configs, files
from lmzoo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Toy:
    width: int
    heads: int = 2
    rate: float = 0.5
    name: str = "toy"
    window: int | None = None

    def __post_init__(self) -> None:
        configs.require_positive(self, "width", "heads", "rate")
        configs.require_divides(self, "heads", "width")
        configs.require_between(self, "rate", 0, 1, below_high=True)


@dataclass(frozen=True)
class Loose:
    rate: float = 0.0


def test_build_and_to_dict_round_trip() -> None:
    toy = configs.build(Toy, {"width": 8, "rate": 0.25, "window": 3})
    assert configs.build(Toy, configs.to_dict(toy)) == toy


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "width must be given to Toy"),
        ({"width": 8, "widht": 1}, "widht=1 is not a setting of Toy; did you mean 'width'?"),
        ({"width": "8"}, "width='8': input should be a valid integer"),
        ({"width": 8.0}, "width=8.0: input should be a valid integer"),
        ({"width": True}, "width=True: input should be a valid integer"),
        ({"width": 8, "rate": "fast"}, "rate='fast': input should be a valid number"),
        ({"width": 8, "heads": 3}, "heads=3 must divide width=8"),
        ({"width": 0}, "width=0 must be a positive integer"),
        ({"width": 8, "rate": float("nan")}, "rate=nan must be a finite number above 0"),
        ({"width": 8, "rate": float("inf")}, "rate=inf must be a finite number above 0"),
        ({"width": 8, "rate": 1.0}, "rate=1.0 must be in [0, 1)"),
    ],
)
def test_build_errors_name_field_value_and_rule(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.build(Toy, values)
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        configs.build(Toy, values, where="run.toml")
    assert str(caught.value) == f"run.toml: {message}"


def test_parse_overrides_reads_toml_or_text() -> None:
    read = configs.parse_overrides(["a=1", "b = 2.5", "c=true", "d=bf16", 'e="7"', "f=[1, 2]", "g=x=y"])
    assert read == {"a": 1, "b": 2.5, "c": True, "d": "bf16", "e": "7", "f": [1, 2], "g": "x=y"}
    with pytest.raises(ConfigError, match="--set 'width' must have the form KEY=VALUE"):
        configs.parse_overrides(["width"])


def test_build_reads_none_where_the_type_allows_it() -> None:
    assert configs.build(Toy, {"width": 8, "window": "none"}).window is None
    assert configs.build(Toy, {"width": 8, "name": "none"}).name == "none"
    with pytest.raises(ConfigError, match="heads='none': input should be a valid integer"):
        configs.build(Toy, {"width": 8, "heads": "none"})


def test_types_of_are_types_and_not_texts() -> None:
    assert configs.types_of(Toy) == {"width": int, "heads": int, "rate": float, "name": str, "window": int | None}


def test_build_checks_the_types_of_the_class_that_it_is_given() -> None:
    """Validators of types are cached: two classes of one name must not share it."""
    classes = [dataclass(frozen=True)(type("Same", (), {"__annotations__": {"x": kind}})) for kind in (int, str)]
    assert [configs.build(cls, {"x": value}).x for cls, value in zip(classes, (1, "a"), strict=True)] == [1, "a"]
    with pytest.raises(ConfigError, match="x='a': input should be a valid integer"):
        configs.build(classes[0], {"x": "a"})


def test_dump_toml_is_read_back() -> None:
    tables = {
        "name": 'a "quoted" 名字\n\t\\',
        "model": {"width": 8, "rate": 1e-5, "big": 1e22, "flag": False, "list": ["a", "b"], "pair": (1, 2.5)},
        "extremes": {"high": float("inf"), "low": float("-inf")},
    }
    read = tomllib.loads(configs.dump_toml(tables))
    assert read == tables | {"model": tables["model"] | {"pair": [1, 2.5]}}  # type: ignore[operator]


@pytest.mark.parametrize("text", ["a\x7fb", "\x00\x1b\x9f", "\ufeff\u2028\u202e", "end\r", '\'"""\''])
def test_dump_toml_escapes_control_characters(text: str) -> None:
    tables = {"data": {"data": text, "rate": float("nan")}, "first": text}
    assert tomllib.loads(configs.dump_toml(tables))["data"]["data"] == text


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.one_of(VALUES, st.lists(VALUES))))
def test_dump_toml_of_any_table_is_read_back(table: dict[str, object]) -> None:
    read = tomllib.loads(configs.dump_toml({"table": table}))["table"]
    assert {key: repr(value) for key, value in read.items()} == {key: repr(value) for key, value in table.items()}


@given(st.from_regex(r"[a-z_.]+", fullmatch=True), st.text(max_size=200))
def test_parse_overrides_of_any_short_text_gives_one_value(key: str, text: str) -> None:
    assert configs.parse_overrides([f"{key}={text}"]).keys() == {key}


def test_dump_toml_refuses_what_toml_cannot_hold() -> None:
    for value in ("a\udcffb", {1, 2}):
        with pytest.raises(ConfigError, match="cannot be written as TOML"):
            configs.dump_toml({"data": value})


def test_build_uses_the_validated_values() -> None:
    assert type(configs.build(Loose, {"rate": 0}).rate) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 10**400}, "must be below 2^63"),
        ({"width": 10**5000}, "width=a very large int must be below 2^63"),
        ({"width": 1 << 41}, "width=2199023255552 must be below 2^40"),
        ({"width": 8, "rate": 10**400}, "rate=10"),
    ],
)
def test_build_bounds_every_number(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.build(Toy, values)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 9000, "1" * 5000, "x" * 20_000])
def test_parse_overrides_bounds_the_value(text: str) -> None:
    with pytest.raises(ConfigError, match="--set width: its value has"):
        configs.parse_overrides([f"width={text}"])


def test_parse_overrides_reads_one_value() -> None:
    assert configs.parse_overrides(["a=1\nb=2"]) == {"a": "1\nb=2"}


def test_load_toml_reads_regular_files_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text(" " * (files.SETTINGS_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"a = '\xff'")
    for name, rule in {
        "pipe": "not a regular file",
        "large": "larger",
        "latin": "UTF-8",
        "none": "No such file",
    }.items():
        with pytest.raises(ConfigError, match=f"{name}: cannot be read as TOML: .*{rule}"):
            configs.load_toml(tmp_path / name)
    with pytest.raises(ConfigError, match="not a regular file"):
        configs.load_toml("/dev/zero")


@pytest.mark.parametrize("tables", [{"a": None}, {"model": {"window": None}}, {"model": {"sizes": [1, None]}}])
def test_dump_toml_never_drops_a_none(tables: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="TOML has no null"):
        configs.dump_toml(tables)


def test_to_table_writes_none_as_a_text_that_build_reads_back() -> None:
    for toy in (Toy(width=8), Toy(width=8, window=3)):
        text = configs.dump_toml({"model": configs.to_table(toy)})
        assert configs.build(Toy, tomllib.loads(text)["model"]) == toy
    assert configs.to_table(Toy(width=8))["window"] == "none"


def test_to_table_writes_a_tuple_as_a_list() -> None:
    @dataclass(frozen=True)
    class Listed:
        names: tuple[str, ...] = ("a", "b")

    table = configs.to_table(Listed())
    assert table == tomllib.loads(configs.dump_toml({"model": table}))["model"]
    assert configs.build(Listed, table) == Listed()


def test_require_inner_heads_names_the_width_or_the_groups() -> None:
    def check(head_dim: int | None, groups: int) -> None:
        config = SimpleNamespace(expand=2, d_model=32, width=head_dim, groups=groups)
        configs.require_inner_heads(config, "width", "groups", default=8)

    check(16, 2)
    check(None, 4)
    with pytest.raises(ConfigError, match=r"width=24 must divide expand \* d_model = 64"):
        check(24, 1)
    with pytest.raises(ConfigError, match="groups=3 must divide the number of heads, 4"):
        check(16, 3)
    with pytest.raises(ConfigError, match="groups=3 must divide the number of heads, 8"):
        check(None, 3)


def test_require_positive_takes_whole_numbers_alone_where_the_field_is_an_integer() -> None:
    """A config that is made directly has no other check of its types."""
    for wrong in ({"width": 4.0}, {"width": 4, "heads": 1.5}):
        name, value = [*wrong.items()][-1]
        with pytest.raises(ConfigError, match=f"{name}={value} must be a positive integer"):
            Toy(**wrong)


def test_build_compares_no_array_with_none() -> None:
    with pytest.raises(ConfigError, match="window=array"):
        configs.build(Toy, {"width": 4, "window": np.zeros(3)})
