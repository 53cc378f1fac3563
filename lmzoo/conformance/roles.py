"""Checks that parameters have the right role for the optimizer: weight decay and Muon depend on it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import ROLES, LanguageModel


def roles(subject: Subject) -> str:
    """Checks that declared roles exist, and that no parameter is taken for a matrix wrongly, by default or declaration.

    A parameter of two or more dimensions, outside an embedding or the head, is taken for a matrix between features:
    weight decay applies to it, and Muon makes it orthogonal. Both are wrong for a table that is added to activations or
    multiplied with them elementwise, also behind a function such as exp, and for one whose rows are looked up by index.
    One that is only multiplied with features must not be declared as an embedding, either.
    """
    model = subject.model()
    guessed: dict[int, str] = {}
    matrices: dict[int, str] = {}
    tables: dict[int, str] = {}  # declared as such, though no axis has one entry per token or position
    counts = (subject.config.vocab_size, subject.config.context_length)
    declared = 0
    heads = set(model.head.modules())
    for where, module in model.named_modules():
        roles_of_module: dict[str, str] = getattr(module, "parameter_roles", {})
        for name, role in roles_of_module.items():
            declared += 1
            if role not in ROLES:
                raise Fault(f"{where}.{name} has the role {role!r}, which must be one of {', '.join(ROLES)}")
            parameter = getattr(module, name, None)
            if role == "matrix" and isinstance(parameter, nn.Parameter):
                matrices[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}"
            is_table = role == "embedding" and isinstance(parameter, nn.Parameter) and module not in heads
            if is_table and parameter.ndim == 2 and not {*counts} & {*parameter.shape}:
                tables[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}"
        if type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.Embedding) or module in heads:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2 and name not in roles_of_module and not isinstance(module, nn.Linear):
                guessed[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}".lstrip(".")
                if sum(size > 1 for size in parameter.shape) < 2:
                    raise Fault(f"{guessed[id(parameter)]} is a vector, but its role defaults to 'matrix'; {DECLARE}")
    use, by_default, maps = _other_use(model, subject, guessed | matrices, guessed, tables)
    if use:
        raise Fault(f"{use}, but its role {'defaults to' if by_default else 'is'} 'matrix'; {DECLARE}")
    if maps:
        raise Fault(
            f"{maps[0]} is a map between features, but its role is 'embedding', that of a row per token or position: "
            "it is 'matrix'"
        )
    return f"{declared} declared roles; {len(guessed)} parameters are matrices by default"


DECLARE = "declare it: parameter_roles = {'NAME': 'vector'} (or 'embedding') on the module"


def _other_use(
    model: LanguageModel, subject: Subject, names: dict[int, str], guessed: dict[int, str], tables: dict[int, str]
) -> tuple[str, bool, list[str]]:
    """Returns a sentence about the first parameter of `names` that is used other than as a matrix; else empty.

    Also returns True if it is one of `guessed`, and those of `tables` that are only multiplied as matrices.
    """
    if not names and not tables:
        return "", False, []
    with _OtherUse(names, tables) as mode:
        model(subject.tokens(2, min(subject.context, 9)))
    return mode.found, mode.table in guessed.values(), sorted(mode.multiplied - mode.other)


class _OtherUse(TorchFunctionMode):
    """Finds, while active, how a parameter is used other than as a matrix: in a sum or product with an activation, or
    as a table whose rows are looked up by index.

    The parameter may be viewed or mapped elementwise before. An activation has more dimensions than the parameter: a
    weight that is scaled row by row is still a matrix.
    """

    found, table = "", ""

    def __init__(self, names: dict[int, str], tables: dict[int, str]) -> None:
        self.names = dict(names)  # by id, of parameters and of what is made of one alone
        self.tables = tables
        self.multiplied: set[str] = set()  # of `tables`
        self.other: set[str] = set()
        self._made: list[Tensor] = []  # kept alive, so that no id is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        for place, argument in enumerate(args):
            if id(argument) in self.tables and isinstance(out, Tensor):
                weight = name == "linear" and place == 1
                (self.multiplied if weight or name in _PRODUCTS else self.other).add(self.tables[id(argument)])
        if func is F.embedding and len(args) > 1 and id(args[1]) in self.names and not self.found:
            self.table = self.names[id(args[1])]
            self.found = f"{self.table} is a table of rows that are looked up by index"
        if name in _LOOKUPS and len(args) > 1 and id(args[0]) in self.names and args[0].ndim == 2 and not self.found:
            index = args[1] if isinstance(args[1], tuple) else args[1:]
            if any(isinstance(part, Tensor) and part.dtype == torch.long for part in index):
                self.table = self.names[id(args[0])]
                self.found = f"{self.table} is a table of rows that are looked up by index"
        if name in _VIEWS | _MAPS and args and id(args[0]) in self.names and isinstance(out, Tensor):
            self.names[id(out)] = self.names[id(args[0])]
            self._made.append(out)
        if name in _ELEMENTWISE and len(args) == 2 and not self.found:
            for table, other in (args, args[::-1]):
                if id(table) in self.names and isinstance(other, Tensor) and id(other) not in self.names:
                    whole = table.ndim >= 2 and other.ndim > sum(size > 1 for size in table.shape)
                    if whole:
                        used = "added to activations" if name in _SUMS else "multiplied with activations elementwise"
                        self.table = self.names[id(table)]
                        self.found = f"{self.table} is {used}"
        return out


_SUMS = {"add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__"}
_ELEMENTWISE = _SUMS | {"mul", "__mul__", "__rmul__", "__imul__", "mul_"}
_LOOKUPS = {"__getitem__", "index_select", "gather", "take_along_dim"}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm"}
_VIEWS = {"__getitem__", "view", "reshape", "unsqueeze", "expand", "expand_as", "to", "narrow", "squeeze", "flatten"}
_MAPS = {"exp", "neg", "__neg__", "sigmoid", "logsigmoid", "log_sigmoid", "softplus", "tanh", "log", "float", "double"}
