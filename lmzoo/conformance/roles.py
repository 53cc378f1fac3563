"""Checks the roles of parameters, on which weight decay and Muon depend."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lmzoo.conformance.report import Fault
from lmzoo.conformance.stacks import UseOfStacks
from lmzoo.conformance.tiny import Subject
from lmzoo.model import ROLES, LanguageModel, has_filters

DECLARE = "declare it: parameter_roles = {'NAME': 'vector'} (or 'embedding') on the module"
EMBEDDING = "'embedding', which has a row for each token or position"
VECTOR = "'vector', which is a bias, or weights that are multiplied elementwise"


def roles(subject: Subject) -> str:
    """Checks that declared roles exist, and that each parameter is used as its role says, declared or by default.

    By default a parameter of two or more dimensions, outside an embedding or the head, is a matrix between features:
    weight decay applies to it, and Muon makes its updates orthogonal. Both are wrong for a table that is added to
    activations or multiplied with them elementwise (also after a function such as exp), for the filter of a convolution
    of each feature, and for a table whose rows are looked up by index. A map, which sums over one axis of the features
    and makes another, must not be declared as an embedding or a vector either. The first
    axis of a stack of maps must count the maps.
    """
    model = subject.model()
    guessed: dict[int, str] = {}
    matrices: dict[int, str] = {}
    tables: dict[int, str] = {}  # declared as such, though no axis has one entry per token or position
    vectors: dict[int, str] = {}  # declared as such, with more than one axis
    stacks: dict[int, str] = {}  # declared as such, with three axes
    counts = (subject.config.vocab_size, subject.config.context_length)
    declared = 0
    heads = set(model.head.modules())
    for where, module in model.named_modules():
        roles_of_module: dict[str, str] = getattr(module, "parameter_roles", {})
        for name, role in roles_of_module.items():
            declared += 1
            if role not in ROLES:
                raise Fault(
                    f"{where}.{name} has the role {role!r} in parameter_roles, which must be one of {', '.join(ROLES)}"
                )
            parameter = getattr(module, name, None)
            if role == "matrix" and isinstance(parameter, nn.Parameter):
                matrices[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}"
            if role == "matrices" and isinstance(parameter, nn.Parameter) and parameter.ndim == 3:
                stacks[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}"
            if role == "vector" and isinstance(parameter, nn.Parameter) and _axes(parameter) > 1:
                vectors[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}"
            is_table = role == "embedding" and isinstance(parameter, nn.Parameter) and module not in heads
            if is_table and parameter.ndim == 2 and not {*counts} & {*parameter.shape}:
                tables[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}"
        of_torch = type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.Embedding)
        if of_torch or module in heads or has_filters(module):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2 and name not in roles_of_module and not isinstance(module, nn.Linear):
                guessed[id(parameter)] = f"{where}.{name} {tuple(parameter.shape)}".lstrip(".")
                if _axes(parameter) < 2:
                    raise Fault(f"{guessed[id(parameter)]} is a vector, but its role defaults to 'matrix'; {DECLARE}")
    mode, stacked = _UseOfParameters(guessed | matrices, tables, vectors), UseOfStacks(stacks)
    if guessed or matrices or tables or vectors or stacks:
        with mode, stacked:
            model(subject.tokens(2, min(subject.context, 9)))
    if mode.found:
        by_default = mode.table in guessed.values()
        raise Fault(f"{mode.found}, but its role {'defaults to' if by_default else 'is'} 'matrix'; {DECLARE}")
    for maps, role in ((mode.multiplied - mode.other, EMBEDDING), (mode.maps - mode.elementwise, VECTOR)):
        if maps:
            raise Fault(
                f"{min(maps)} is a map between features, but its role is {role}; look at parameter_roles: declare "
                "'matrix'"
            )
    if stacked.found:
        raise Fault(stacked.found)
    return f"{declared} declared roles; {len(guessed)} parameters are matrices by default"


def roles_by_id(model: LanguageModel) -> dict[int, str]:
    """Returns the role of each parameter, by the `id` of the parameter."""
    return {id(p): group["role"] for group in model.parameter_groups(0.0) for p in group["params"]}


def _axes(parameter: Tensor) -> int:
    """Returns the number of axes with more than one entry."""
    return sum(size > 1 for size in parameter.shape)


class _UseOfParameters(TorchFunctionMode):
    """Notes, while active, the parameters that are used other than as their role says.

    A matrix: elementwise in a sum or product with an activation, as the filter of a convolution of each feature, or as
    a table whose rows are looked up by index. A vector or an embedding: in a matrix product with an activation.

    Views and elementwise functions of a parameter count as the parameter. An activation has more dimensions than the
    parameter: a weight that is scaled row by row is still a matrix.
    """

    found, table = "", ""  # the first wrong use of a matrix, in words, and the name of this matrix

    def __init__(self, matrices: dict[int, str], tables: dict[int, str], vectors: dict[int, str]) -> None:
        # Names by the id of the parameter, or of a tensor that is computed from this parameter alone.
        self.names, self.vectors = dict(matrices), dict(vectors)
        self.tables = tables
        self.multiplied: set[str] = set()  # members of `tables` that are used in a matrix product,
        self.other: set[str] = set()  # and those that are used in another way
        self.maps: set[str] = set()  # members of `vectors` that are used as a map between features,
        self.elementwise: set[str] = set()  # and those that are used elementwise
        self._made: list[Tensor] = []  # kept alive, so that no other tensor gets their ids

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        for place, argument in enumerate(args):
            if id(argument) in self.tables and isinstance(out, Tensor):
                weight = name == "linear" and place == 1
                (self.multiplied if weight or name in _PRODUCTS else self.other).add(self.tables[id(argument)])
        if func is F.embedding and id(args[1]) in self.names and not self.found:
            self.table = self.names[id(args[1])]
            self.found = f"{self.table} is a table of rows that are looked up by index"
        if name in _LOOKUPS and len(args) > 1 and id(args[0]) in self.names and args[0].ndim == 2 and not self.found:
            index = args[1] if isinstance(args[1], tuple) else args[1:]
            if any(isinstance(part, Tensor) and part.dtype == torch.long for part in index):
                self.table = self.names[id(args[0])]
                self.found = f"{self.table} is a table of rows that are looked up by index"
        self._look_at_vectors(name, args)
        depthwise = name in _CONVOLUTIONS and len(args) > 1 and args[1].shape[0] > 1 and args[1].shape[1] == 1
        if depthwise and args[0].shape[-args[1].ndim + 1] > 1 and id(args[1]) in self.names and not self.found:
            self.table = self.names[id(args[1])]
            self.found = f"{self.table} holds a filter for each feature, which is multiplied elementwise"
        for named in (self.names, self.vectors):
            made = _VIEWS | _MAPS if named is self.names else _KEPT | _TRANSPOSED
            if name in made and args and id(args[0]) in named and isinstance(out, Tensor):
                named[id(out)] = named[id(args[0])]
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

    def _look_at_vectors(self, name: str, args: Any) -> None:
        """Notes which of `vectors` are used as a map between features, and which elementwise.

        A map sums over one axis of an activation and makes another. A parameter that was expanded for the batch is left
        out: it is a state before the first token.
        """
        equation, *operands = args if name == "einsum" and isinstance(args[0], str) else ("", *args)
        if name not in _PRODUCTS | _ELEMENTWISE | {"linear", "einsum"} or len(operands) < 2:
            return
        for place, argument in enumerate(operands[:2]):
            other = operands[1 - place]
            if id(argument) not in self.vectors or argument.ndim < 2 or not isinstance(other, Tensor):
                continue
            if name in _ELEMENTWISE:
                self.elementwise.add(self.vectors[id(argument)])
            elif other.ndim > 2 and (
                _sums_and_makes(equation, place) if equation else min(argument.shape[-2:]) > 1 and place == 1
            ):
                self.maps.add(self.vectors[id(argument)])


def _sums_and_makes(equation: str, place: int) -> bool:
    """True if an operand of an einsum has an axis that is summed over with the other, and one that the other lacks."""
    inputs, _, result = equation.replace(" ", "").replace(".", "").partition("->")
    mine, other = (set(part) for part in inputs.split(",")[:: 1 - 2 * place])
    return bool(mine & other - set(result)) and bool(mine & set(result) - other)


# Names of the functions that torch calls.
_SUMS = {"add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__"}
_ELEMENTWISE = _SUMS | {"mul", "__mul__", "__rmul__", "__imul__", "mul_"}
_LOOKUPS = {"__getitem__", "index_select", "gather", "take_along_dim"}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm"}
_CONVOLUTIONS = {"conv1d", "conv2d"}
_KEPT = {"__getitem__", "view", "reshape", "unsqueeze", "to", "narrow", "squeeze", "flatten"}
_VIEWS = _KEPT | {"expand", "expand_as"}
_TRANSPOSED = {"t", "transpose", "permute", "__get__", "contiguous"}  # `__get__` is `.T`
_MAPS = {"exp", "neg", "__neg__", "sigmoid", "logsigmoid", "log_sigmoid", "softplus", "tanh", "log", "float", "double"}
