"""Maps names to models: the decorator, built-in backbones, plug-ins, the entries of `registry/`.

Importing this module does not import torch: `lmzoo list` reads file names and TOML. The class of a model is imported
when it is first used. A model is named `family` or `family.preset`, as in `gpt2` and `gpt2.124m`.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmzoo import configs, entries, humanize, plugins, suggestions
from lmzoo.building import blank_model as blank_model
from lmzoo.building import build_model
from lmzoo.building import checked_device as checked_device
from lmzoo.entries import Family, Preset, natural
from lmzoo.errors import ConfigError, InputError, UnknownModelError

if TYPE_CHECKING:
    import torch

    from lmzoo.model import LanguageModel, ModelConfig

TRANSPLANT = "-transplant"  # ends the name of a family that `lmzoo.transplant` derives from another one
ENTRY_POINTS = "lmzoo.backbones"  # entry point group of packages that provide backbones: family = "module"

Model = TypeVar("Model", bound="LanguageModel")
_classes: dict[str, type[LanguageModel]] = {}
_registered_with: dict[type[LanguageModel], Family] = {}  # class -> the presets given to `register_model`
_broken_plugins: dict[str, str] = {}  # family -> why it could not be imported


def register_model(name: str, *, presets: Mapping[str, Any] | None = None) -> Callable[[type[Model]], type[Model]]:
    """Class decorator: register a `LanguageModel` subclass as `name`.

    `presets` maps the names of presets to tables with `source`, `model` and `train`, as in a presets.toml; its table
    `family` holds facts and the recipe of all presets. Raises `ConfigError` if the name is taken or a table is wrong.
    """
    if isinstance(name, type):
        raise ConfigError(f"register_model needs a name: @register_model('my-model') above {name.__name__}")
    _require_valid_name(name)
    own = entries.parse(f"presets of {name}", {} if presets is None else presets)

    def register(cls: type[Model]) -> type[Model]:
        if not isinstance(cls, type) or not hasattr(cls, "config_class"):  # `LanguageModel` itself would import torch
            raise ConfigError(f"register_model({name!r}) must decorate a subclass of lmzoo.LanguageModel, not {cls!r}")
        taken = _classes.get(name)
        if taken is None and name in _builtin_families() and cls.__module__ != f"lmzoo.backbones.{name}":
            raise ConfigError(f"name={name!r} is taken by the built-in backbone")
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"name={name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        cls.family = name
        _classes[name] = cls
        _registered_with[cls] = replace(own, name=name)
        return cls

    return register


def require_new_name(name: str) -> None:
    """Raise `ConfigError` unless `name` can be the name of a new family."""
    _require_valid_name(name)
    if name in families():
        raise ConfigError(f"name={name!r} is taken: lmzoo show {name} describes it")


def _require_valid_name(name: str) -> None:
    if not isinstance(name, str) or not entries.NAME.fullmatch(name):
        raise ConfigError(f"name={name!r} must be lower-case letters, digits, '-' and '_' (the dot names a preset)")


def list_models(pattern: str = "*", **wanted: Any) -> list[str]:
    """List families and presets whose name matches the wildcard `pattern`, in natural order (`1m` before `10m`).

    `wanted` filters by facts of the family: `list_models(state_growth="constant", extrapolates=True)`. Raises
    `ConfigError` for a fact that no family has, and for a value of another type than theirs.
    """
    if not isinstance(pattern, str):
        raise ConfigError(f"pattern={pattern!r} must be a text, such as 'gpt*'")
    found, types = families(), dict[str, set[str]]()
    for family in found.values():
        for fact, value in family.facts.items():
            types.setdefault(fact, set()).add(type(value).__name__)
    for fact, value in wanted.items():
        if fact not in types:
            raise ConfigError(f"{fact}={value!r} is no fact to filter by{configs.suggest(fact, types)}")
        if type(value).__name__ not in types[fact]:
            raise ConfigError(f"{fact}={value!r} must be of the type {' or '.join(sorted(types[fact]))}")
    names: list[str] = []
    for family in found.values():
        if all(family.facts.get(fact) == value for fact, value in wanted.items()):
            names += [family.name, *(f"{family.name}.{preset}" for preset in family.presets)]
    return sorted(fnmatch.filter(names, pattern), key=natural)


def families() -> dict[str, Family]:
    """Return all families (built in, registered, or provided by a plug-in), each with its registry entry."""
    found = _entries()
    names = {*_builtin_families(), *_plugin_modules(), *_classes} - {*_broken_plugins}
    return {name: _completed(name, found) for name in sorted(names, key=natural)}


def split_name(name: str) -> tuple[Family, Preset | None]:
    """Split "gpt2.124m" into its family and preset. Raises `UnknownModelError` with the nearest known name."""
    if not isinstance(name, str):
        raise UnknownModelError(f"name={name!r} must be the name of a model, a text")
    family_name, _, preset_name = name.partition(".")
    known = families()
    found = known.get(family_name) or known.get(family_name.removesuffix(TRANSPLANT))
    if found is None and os.sep in name:
        raise UnknownModelError(f"{name!r} is neither the name of a model nor a run")
    if found is None:
        raise UnknownModelError(_unknown(name))
    family = found if found.name == family_name else replace(found, name=family_name)
    if not preset_name:
        return family, None
    if preset_name not in family.presets:
        raise UnknownModelError(
            f"preset {preset_name!r} of {family_name!r} is unknown{configs.suggest(preset_name, family.presets)}"
        )
    return family, family.presets[preset_name]


def recipe(name: str) -> dict[str, Any]:
    """Return the training recipe of a model: settings of `TrainConfig` from the family, overridden by the preset."""
    family, preset = split_name(name)
    return {**family.train, **(preset.train if preset else {})}


def model_class(family: str) -> type[LanguageModel]:
    """Return the class registered as `family`, imported if necessary.

    Raises `UnknownModelError`, also for a plug-in that cannot be imported.
    """
    if family not in _classes:
        split_name(family)
        if family not in families():
            from lmzoo.transplant.model import transplanted

            return transplanted(model_class(family.removesuffix(TRANSPLANT)))
        module = f"lmzoo.backbones.{family}" if family in _builtin_families() else _plugin_modules()[family]
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            if family in _builtin_families():
                raise
            _broken_plugins[family] = plugins.described(error)
            raise UnknownModelError(
                f"the plug-in for {family!r} failed to import: {_broken_plugins[family]}"
            ) from error
        if family not in _classes:
            raise UnknownModelError(f"{module} does not register a model named {family!r}")
    return _classes[family]


def model_config(name: str, **settings: Any) -> ModelConfig:
    """Return the full config of a model: the preset's settings, overridden by `settings`.

    Raises the same errors as `create_model`.
    """
    return _class_and_config(name, settings)[1]


def create_model(
    name: str,
    *positional: object,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    match: str | None = None,
    **config: Any,
) -> LanguageModel:
    """Create a model from the preset's settings, overridden by `config`, with weights drawn as in `build_model`.

    `match="params=1M"` chooses the widths for a budget; see `lmzoo.matching`.
    Raises `UnknownModelError` for an unknown name and `ConfigError` naming field, value and rule for a wrong setting.
    """
    if positional:
        raise InputError(f"create_model takes settings by name, not by position: vocab_size={positional[0]!r}")
    if match is not None:
        from lmzoo import matching

        config = configs.to_dict(matching.matched_config(name, match, **config).config)
    return build_model(*_class_and_config(name, config), generator=generator, device=device)


def _class_and_config(name: str, settings: Mapping[str, Any]) -> tuple[type[LanguageModel], ModelConfig]:
    family, preset = split_name(name)
    cls = model_class(family.name)
    return cls, configs.build(cls.config_class, {**(preset.model if preset else {}), **settings})


def is_registered(cls: type[LanguageModel]) -> bool:
    """Return True for a class that `model_class` finds by its name."""
    try:
        return bool(cls.family) and model_class(cls.family) is cls
    except UnknownModelError:
        return False


def registered_classes() -> list[type[LanguageModel]]:
    """Return the classes registered so far."""
    return [*_classes.values()]


def registered_from(path: Path) -> list[str]:
    """Return the families that the plug-in file `path` has registered."""
    return [name for name, cls in _classes.items() if cls.__module__ == plugins.module_name(path)]


def load_plugin(source: str) -> None:
    """Import a Python file or module that registers models, as `--plugin FILE_OR_MODULE` does. Raises `ConfigError`."""
    before = dict(_classes)
    try:
        plugins.load_source(source)
    except BaseException:
        if plugins.is_file(source):
            _classes.clear()  # without the models that a half-read file has registered
            _classes.update(before)
        raise


def _entries() -> dict[str, Family]:
    """Return the entries in registry folders by family: those of packages, for their own families, and all others."""
    found = dict(entries.read(tuple(entries.folders())))
    for package, names in _providers().items():
        folder = entries.package_folder(package)
        for name, entry in (entries.read((folder,)) if folder else {}).items():
            if name in names:
                found[name] = replace(entries.merged(entry, found.get(name, entry)), folder=entry.folder)
    return found


def _providers() -> dict[str, set[str]]:
    """Return the packages that provide families, installed or imported, and the families of each."""
    found: dict[str, set[str]] = {}
    for name, module in ({name: cls.__module__ for name, cls in _classes.items()} | _plugin_modules()).items():
        package = module.partition(".")[0]
        if package != "lmzoo":
            found.setdefault(package, set()).add(name)
    return found


def _completed(name: str, found: Mapping[str, Family]) -> Family:
    """Return the entry of a family, for a plug-in with what its class inherits and was registered with.

    A subclass of a registered class has the presets and the recipe of this class.
    """
    entry, cls = found.get(name, Family(name)), _classes.get(name)
    if cls is None or name in _builtin_families():
        return entry
    parent = next((base for base in cls.__mro__[1:] if _classes.get(getattr(base, "family", "")) is base), None)
    inherited = Family(name) if parent is None else _completed(parent.family, found)
    docstring = inspect.cleandoc(cls.__doc__ or "")
    summary = {"summary": humanize.line(docstring.partition("\n")[0])} if docstring else {}
    own = entries.merged(replace(inherited, facts=summary), _registered_with.get(cls, Family(name)))
    return entries.merged(own, replace(entry, docstring=docstring))


@cache
def _builtin_families() -> frozenset[str]:
    files = (Path(__file__).parent / "backbones").glob("*.py")
    return frozenset(file.stem for file in files if file.stem != "__init__")


@cache
def _plugin_modules() -> dict[str, str]:
    """Return the module of each family of installed packages; mark a family as broken that two packages provide."""
    found: dict[str, str] = {}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.module):
        first = found.setdefault(point.name, point.module)
        if first != point.module:
            _broken_plugins[point.name] = f"{first} and {point.module} both provide it: uninstall one of the packages"
    return found


def _unknown(name: str) -> str:
    plugins = ", ".join(sorted({*_plugin_modules()} - {*_broken_plugins})) or "none"
    broken = "".join(f"; plug-in {family!r} is broken ({why})" for family, why in _broken_plugins.items())
    near = suggestions.suggest_model(name, list_models())
    return (
        f"model {name!r} is unknown{near}; plug-ins installed: {plugins}{broken}; "
        f"add one with --plugin FILE or lmzoo.register_model"
    )
