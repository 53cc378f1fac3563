"""Tests names, presets, plug-ins and the entries of registry/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lmzoo
from lmzoo import entries, registry
from lmzoo.errors import ConfigError, LmzooError, UnknownModelError
from lmzoo.model import LanguageModel, ModelConfig
from tests.cases import each_case
from tests.test_building import Plain

BUILT_IN = sorted(path.stem for path in (Path(__file__).parents[1] / "lmzoo/backbones").glob("[!_]*.py"))


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Copy the table of registered classes, so that a test leaves no registration behind."""
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(registry, "_broken_plugins", {})
    return monkeypatch


def write_plugin(path: Path, name: str) -> Path:
    path.write_text(
        "from torch import nn\n"
        "import lmzoo\n"
        f"@lmzoo.register_model({name!r})\n"
        "class Uniform(lmzoo.LanguageModel):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.table = nn.Embedding(config.vocab_size, config.vocab_size)\n"
        "        self.head = nn.Identity()\n"
        "    def features(self, idx_BT, state=None):\n"
        "        return self.table(idx_BT), state\n",
        encoding="utf-8",
    )
    return path


def test_create_model_bigram_runs_the_lecture_word_for_word() -> None:
    idx, targets = torch.randint(65, (4, 8)), torch.randint(65, (4, 8))
    model = lmzoo.create_model("bigram", vocab_size=65)
    logits, loss = model(idx, targets)
    loss.backward()
    assert logits.shape == (4, 8, 65)
    assert model.generate(idx, max_new_tokens=100).shape == (4, 108)


def test_families_have_presets_facts_and_cards() -> None:
    families = registry.families()
    assert set(BUILT_IN) <= set(families)
    for name in BUILT_IN:
        family = families[name]
        assert {"tiny", "1m", "10m"} <= set(family.presets), name
        assert {"title", "summary", "kind", "year", "paper", "extrapolates", "state_growth"} <= set(family.facts), name
        assert family.card.startswith("# "), f"{name} has no card.md"
        assert all(preset.source for preset in family.presets.values()), f"{name}: say where the numbers come from"


GROWTH = {"none": "none", "constant": "constant", "logarithmic": "logarithm", "linear": "grow"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_cards_say_what_a_student_looks_for(name: str) -> None:
    """The idea, the equations, how the state grows, where it is from, how it differs and what it was compared with."""
    family = registry.families()[name]
    sections = ("The idea", "The equations", "The papers?", "Initialization", "Deviations", "Verified against")
    for section in (*sections, "(Known traps|Traps in)"):
        assert re.search(rf"^\*\*{section}\b", family.card, re.MULTILINE), section
    for fact in ("state while decoding", "receptive field", "FLOPs per token", r"works?\s+past"):
        assert re.search(fact, family.card), fact
    _, _, state = family.card.partition("- state while decoding")
    assert GROWTH[str(family.facts["state_growth"])] in re.split(r"\n- |\n\n", state)[0]


@each_case("name", BUILT_IN)
def test_families_facts_equal_the_traits_of_the_class(name: str) -> None:
    traits = lmzoo.create_model(name, vocab_size=65, device="meta").traits
    facts = registry.families()[name].facts
    assert (traits.extrapolates, traits.state_growth) == (facts["extrapolates"], facts["state_growth"])


@each_case("name", BUILT_IN)
@pytest.mark.parametrize(("preset", "size", "share"), [("tiny", 1e5, 0.7), ("1m", 1e6, 0.05), ("10m", 1e7, 0.02)])
def test_presets_have_the_size_in_their_name(name: str, preset: str, size: float, share: float) -> None:
    """Families are compared at equal sizes, counted at a vocabulary of 256 (bytes) unless the preset names another.

    The tables of a model without parameters are counted in their place.
    """
    vocab_size = registry.families()[name].presets[preset].model.get("vocab_size", 256)
    model = lmzoo.create_model(f"{name}.{preset}", vocab_size=vocab_size, device="meta")
    counted = model.num_params() if model.traits.trainable else sum(table.numel() for table in model.buffers())
    assert abs(counted - size) <= share * size


def test_list_models_takes_wildcards_and_facts_in_natural_order() -> None:
    sizes = ["gpt2.tiny", "gpt2.1m", "gpt2.10m", "gpt2.124m"]
    assert lmzoo.list_models("gpt2*") == ["gpt2", "gpt2.shakespeare-fast", *sizes]
    assert lmzoo.list_models("nothing*") == []
    constant = lmzoo.list_models("*.tiny", state_growth="constant")
    assert "lstm.tiny" in constant
    assert "gpt2.tiny" not in constant
    with pytest.raises(ConfigError, match="is no fact to filter by; did you mean 'extrapolates'"):
        lmzoo.list_models(extrapolate=True)
    for fact, wrong in (("extrapolates", "yes"), ("year", torch.zeros(2)), ("year", True)):
        with pytest.raises(ConfigError, match=f"^{fact}=.* must be of the type (bool|int)$"):
            lmzoo.list_models(**{fact: wrong})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gtp2", "model 'gtp2' is unknown; did you mean 'gpt2'?; plug-ins installed: "),
        ("gtp2.tiny", "model 'gtp2.tiny' is unknown; did you mean 'gpt2.tiny'?; plug-ins installed: "),
        ("gpt2.12m", "preset '12m' of 'gpt2' is unknown; did you mean '124m'?"),
        ("gpt2.", "gpt2"),
    ],
)
def test_create_model_suggests_a_name_for_an_unknown_one(name: str, message: str) -> None:
    if name == "gpt2.":
        assert registry.split_name(name)[1] is None
        return
    with pytest.raises(UnknownModelError) as caught:
        lmzoo.create_model(name, vocab_size=65)
    assert str(caught.value).startswith(message)


def test_create_model_overrides_win_over_the_preset() -> None:
    model = lmzoo.create_model("gpt2.tiny", vocab_size=30, n_layers=1)
    assert (model.config.vocab_size, model.config.n_layers, model.config.d_model) == (30, 1, 64)


def test_create_model_draws_weights_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = (
        lmzoo.create_model("gpt2.tiny", vocab_size=65, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(torch.get_rng_state(), before), "the global random state was touched"


@pytest.mark.parametrize("name", BUILT_IN)
def test_create_model_draws_weights_once(name: str) -> None:
    """Uses as many random numbers as one `init_weights`, with the same weights: constructors draw none."""
    torch.manual_seed(3)
    model = lmzoo.create_model(f"{name}.tiny", vocab_size=65)
    weights, after = [parameter.detach().clone() for parameter in model.parameters()], torch.get_rng_state()
    torch.manual_seed(3)
    model.init_weights()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), weights, strict=True))
    assert torch.equal(torch.get_rng_state(), after)


def test_create_model_on_meta_draws_no_weights() -> None:
    before = torch.get_rng_state()
    model = lmzoo.create_model("llama.tiny", vocab_size=65, device="meta")
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)
    assert lmzoo.create_model("llama.tiny", vocab_size=65, device=torch.device("cpu")).device.type == "cpu"


def test_model_config_is_the_config_of_create_model() -> None:
    config = registry.model_config("gpt2.tiny", vocab_size=65, d_model=32, n_heads=2)
    assert config == lmzoo.create_model("gpt2.tiny", vocab_size=65, d_model=32, n_heads=2).config
    assert config.context_length == registry.families()["gpt2"].presets["tiny"].model["context_length"]
    with pytest.raises(ConfigError, match="n_heads=3 must divide d_model=32"):
        registry.model_config("gpt2.tiny", vocab_size=65, d_model=32, n_heads=3)


def test_register_model_refuses_what_is_no_model(clean: pytest.MonkeyPatch) -> None:
    for wrong in (None, nn.Linear, lambda: None):
        with pytest.raises(
            ConfigError, match=r"register_model\('new'\) must decorate a subclass of lmzoo.LanguageModel"
        ):
            lmzoo.register_model("new")(wrong)  # type: ignore[type-var]
    assert "new" not in lmzoo.list_models()
    with pytest.raises(ConfigError, match=r"register_model needs a name: @register_model\('my-model'\) above Plain"):
        lmzoo.register_model(Plain)  # type: ignore[arg-type]


def test_create_model_refuses_a_number_that_no_device_has() -> None:
    for wrong in (2**70, -1, "", "tpux"):
        with pytest.raises(LmzooError, match=f"device={wrong!r} is not a device of this machine"):
            lmzoo.create_model("bigram", vocab_size=3, device=wrong)  # type: ignore[arg-type]


def test_register_model_refuses_a_name_that_is_taken(clean: pytest.MonkeyPatch) -> None:
    class Mine(LanguageModel):
        def features(self, idx_BT, state=None):  # type: ignore[no-untyped-def]
            return idx_BT, state

    assert lmzoo.register_model("mine")(Mine) is Mine
    assert lmzoo.register_model("mine")(Mine) is Mine, "the same class again is no conflict"
    assert "mine" in lmzoo.list_models()
    other = type("Other", (Mine,), {})
    with pytest.raises(ConfigError, match=r"name='mine' is taken by tests.test_registry"):
        lmzoo.register_model("mine")(other)
    with pytest.raises(ConfigError, match="name='gpt2' is taken by"):
        lmzoo.register_model("gpt2")(other)
    with pytest.raises(ConfigError, match=r"name='Mine\.x' must be lower-case"):
        lmzoo.register_model("Mine.x")(other)


def test_load_plugin_registers_a_model(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.load_plugin(str(write_plugin(tmp_path / "uniform.py", "uniform")))
    model = lmzoo.create_model("uniform", vocab_size=9)
    assert isinstance(model.config, ModelConfig)
    assert model.generate(torch.zeros(1, 1, dtype=torch.long), 3).shape == (1, 4)


def write_distribution(folder: Path, name: str, module: str) -> None:
    """Write what pip writes for an installed package with the plug-in `name`."""
    distribution = module.partition(".")[0]
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lmzoo.backbones]\n{name} = {module}\n")


_IN_A_NEW_INTERPRETER = """
import sys
sys.path.insert(0, sys.argv[1])
import lmzoo
from lmzoo import registry

# Installed plug-ins, one of which cannot be imported, and the registry folder of a package that is not imported.
assert {"good", "bad", "extra.mini"} <= set(lmzoo.list_models()), lmzoo.list_models()
assert "gpt2.mini" not in lmzoo.list_models(), "an entry of a family of others is ignored"
assert not {"torch", "lmzoo_extra", "lmzoo_good"} & set(sys.modules)
assert registry.families()["extra"].card == "# Extra"
assert registry.recipe("extra.mini") == {"learning_rate": 0.5}
assert lmzoo.create_model("extra.mini", vocab_size=5).config.context_length == 8
assert registry.families()["extra"].facts == {"summary": "More."}
assert lmzoo.create_model("good", vocab_size=5).family == "good"
try:
    lmzoo.create_model("bad", vocab_size=5)
except lmzoo.LmzooError as error:
    assert "failed to import: ModuleNotFoundError" in str(error), error
else:
    raise SystemExit("the broken plug-in was created")
assert "bad" not in lmzoo.list_models()
try:
    lmzoo.create_model("rival", vocab_size=5)
except lmzoo.LmzooError as error:
    assert "'rival' is broken (lmzoo_first and lmzoo_second both provide it" in str(error), error
else:
    raise SystemExit("one of two packages was chosen without a word")
assert "rival" not in lmzoo.list_models()
assert lmzoo.create_model("gpt2.tiny", vocab_size=5)

# Torch draws normal values on the meta device by code whose import takes seconds: `load_model` must not do it.
for family in registry.families():
    if family not in ("good", "bad", "extra"):
        cls = registry.model_class(family)
        registry.blank_model(cls, cls.config_class(vocab_size=5), device="meta")
assert "torch._dynamo" not in sys.modules, "blank_model has imported the compiler"
"""


def test_installed_plugins_are_found_and_models_are_built_without_the_compiler(tmp_path: Path) -> None:
    """Three real distributions on the path of a new interpreter; one test, because its imports take two seconds."""
    for name in ("good", "bad"):
        write_distribution(tmp_path, name, f"lmzoo_{name}")
        write_plugin(tmp_path / f"lmzoo_{name}.py", name)
    (tmp_path / "lmzoo_bad.py").write_text("import no_such_module_here")
    for module in ("lmzoo_first", "lmzoo_second"):
        write_distribution(tmp_path, "rival", module)
    write_distribution(tmp_path, "extra", "lmzoo_extra.model")
    package = tmp_path / "lmzoo_extra"
    package.mkdir()
    (package / "__init__.py").write_text("")
    write_plugin(package / "model.py", "extra")
    for name in ("extra", "gpt2"):
        entry = package / "registry" / name
        entry.mkdir(parents=True)
        text = '[family]\nsummary = "More."\n[family.train]\nlearning_rate = 0.5\n[mini.model]\ncontext_length = 8\n'
        (entry / "presets.toml").write_text(text)
        (entry / "card.md").write_text("# Extra")
    subprocess.run([sys.executable, "-c", _IN_A_NEW_INTERPRETER, str(tmp_path)], check=True)


def test_registry_folders_add_families_and_presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = tmp_path / "gpt2"
    entry.mkdir()
    (entry / "presets.toml").write_text('[mini]\nsource = "test"\n[mini.model]\nd_model = 32\nn_heads = 2\n')
    monkeypatch.setenv(entries.EXTRA_FOLDERS, str(tmp_path))
    assert lmzoo.create_model("gpt2.mini", vocab_size=65).config.d_model == 32
    assert "gpt2.124m" in lmzoo.list_models()
    monkeypatch.setenv(entries.EXTRA_FOLDERS, str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="absent is not a folder"):
        lmzoo.list_models()
    (entry / "presets.toml").write_text("[mini]\nconfig = 3\n")
    monkeypatch.setenv(entries.EXTRA_FOLDERS, f"{tmp_path}/")
    entries.read.cache_clear()
    with pytest.raises(ConfigError, match="preset 'mini' may hold source, model and train, not"):
        lmzoo.list_models()


def test_load_plugin_forgets_the_models_of_a_file_that_fails(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "half.py", "half")
    path.write_text(path.read_text() + "1 / 0\n")
    with pytest.raises(ConfigError, match="failed to import"):
        registry.load_plugin(str(path))
    assert "half" not in registry.families()


ENTRIES = {
    "family = 3": "family=3 must be a table",
    "[family]\ntrain = 3": "family.train=3 must be a table",
    "[family]\ntitle = [1]": r"family.title=\[1\] must be a text",
    "[family]\ntitle = 1979-05-27": "family.title=.* must be a text",
    "[tiny]\nsource = 1979-05-27": "tiny.source=.* must be a text",
    "[tiny]\nmodel = 3": "tiny.model=3 must be a table",
    '["ti ny"]': "preset 'ti ny' must be lower-case",
    "tiny = 3": "preset 'tiny' may hold",
    "a = " + "[" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize("text", ENTRIES, ids=lambda text: text[:20])
def test_families_refuses_entries_of_a_wrong_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "bigram").mkdir()
    (tmp_path / "bigram" / "presets.toml").write_text(text)
    monkeypatch.setenv(entries.EXTRA_FOLDERS, str(tmp_path))
    with pytest.raises(ConfigError, match=f"presets.toml: .*{ENTRIES[text]}"):
        registry.families()


def test_families_escape_the_text_of_entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "presets.toml").write_text('[family]\nsummary = "a\\u001b[2Jb"\n[tiny]\nsource = "c\\u202ed"\n')
    (folder / "card.md").write_text("# Title\n\x1b[2J")
    entry = entries.read((tmp_path,))[folder.name]
    assert entry.facts["summary"] == r"a\x1b[2Jb"
    assert entry.presets["tiny"].source == r"c\u202ed"
    assert entry.card == "# Title\n" + r"\x1b[2J"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lmzoo.create_model("bigram", 65), "settings by name, not by position: vocab_size=65"),  # type: ignore[call-arg]
        (lambda: lmzoo.create_model(3, vocab_size=65), "name=3 must be the name of a model"),  # type: ignore[arg-type]
        (lambda: lmzoo.create_model("bigram", vocab_size=65, device="nowhere"), "device='nowhere' is not a device"),
        (lambda: lmzoo.create_model("bigram", vocab_size=65, generator=3), "generator=3 must be"),  # type: ignore[arg-type]
        (lambda: lmzoo.create_model("bigram", vocab_size=10**400), "must be below 2"),
    ],
)
def test_create_model_refuses_arguments_of_a_wrong_kind(call: Any, message: str) -> None:
    with pytest.raises(LmzooError, match=message):
        call()


def test_families_give_a_subclass_the_presets_of_its_class(clean: pytest.MonkeyPatch) -> None:
    from lmzoo.backbones.gpt2 import GPT2

    @lmzoo.register_model("gpt2-mine", presets={"small": {"model": {"d_model": 32}}, "tiny": {"source": "mine"}})
    class Mine(GPT2):
        """A variant.

        With a card.
        """

    @lmzoo.register_model("gpt2-again")
    class Again(Mine):
        pass

    built_in, mine, again = (registry.families()[name] for name in ("gpt2", "gpt2-mine", "gpt2-again"))
    assert set(mine.presets) == {*built_in.presets, "small"} == set(again.presets)
    assert mine.train == built_in.train
    assert mine.presets["1m"] == built_in.presets["1m"]
    assert (mine.presets["tiny"].source, mine.presets["tiny"].model) == ("mine", {})
    assert (mine.facts, mine.card) == ({"summary": "A variant."}, "A variant.\n\nWith a card.")
    model = lmzoo.create_model("gpt2-mine.1m", vocab_size=65)
    assert type(model) is Mine
    assert model.config.d_model == built_in.presets["1m"].model["d_model"]


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        ({"small": {"settings": {}}}, "presets of mine: preset 'small' may hold source, model and train, not"),
        ({"Small": {}}, "preset 'Small' must be lower-case"),
        ({3: {}}, "preset 3 must be lower-case"),
        ({"small": 3}, "preset 'small' may hold"),
        (3, "presets of mine: 3 must be a mapping"),
    ],
)
def test_register_model_refuses_wrong_presets(clean: pytest.MonkeyPatch, presets: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lmzoo.register_model("mine", presets=presets)


def test_require_new_name_refuses_names_that_are_taken_or_wrong() -> None:
    registry.require_new_name("mine")
    for name, message in (("gpt2", "name='gpt2' is taken"), ("a.b", "must be lower-case")):
        with pytest.raises(ConfigError, match=message):
            registry.require_new_name(name)


def test_split_name_knows_derived_families(clean: pytest.MonkeyPatch) -> None:
    family, preset = registry.split_name("llama-transplant.tiny")
    assert (family.name, preset) == ("llama-transplant", registry.families()["llama"].presets["tiny"])
    for name in ("nothing-transplant", "llama-transplant-transplant"):
        with pytest.raises(UnknownModelError, match=f"model '{name}' is unknown"):
            registry.split_name(name)


def test_is_registered_is_true_for_the_class_of_a_name(clean: pytest.MonkeyPatch) -> None:
    assert registry.is_registered(registry.model_class("llama"))
    assert not registry.is_registered(type("Llama", (registry.model_class("llama"),), {}))
    assert not registry.is_registered(Plain)
    assert not registry.is_registered(type("Lost", (Plain,), {"family": "lost"}))
