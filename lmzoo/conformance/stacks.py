"""Finds parameters with the role `matrices` that are used as a stack along another axis than the first."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

CASTS = {"to", "float", "double", "bfloat16", "contiguous", "clone"}
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm"}
AXES = (0, 1, 2)


class UseOfStacks(TorchFunctionMode):
    """Finds, while active, a product in which the matrices of a stack do not lie in its last two axes.

    Muon makes each matrix in the last two axes orthogonal: in another layout it would mix the matrices of the stack.
    `stacks` holds the names of the parameters with three axes and the role `matrices`, by id. They are followed through
    casts and transpositions up to `einsum` or a matrix product. `found` says in words what was found.
    """

    def __init__(self, stacks: dict[int, str]) -> None:
        self.names = dict(stacks)
        # By id: the axes of the parameter, in the order of the tensor that is used.
        self.axes: dict[int, tuple[int, ...]] = dict.fromkeys(stacks, AXES)
        self.found = ""
        self._made: list[Tensor] = []  # kept alive, so that no id is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if args and id(args[0]) in self.names and isinstance(out, Tensor) and out.ndim == len(AXES):
            order = _order(name, args[1:])
            if order is not None:
                self.names[id(out)] = self.names[id(args[0])]
                self.axes[id(out)] = tuple(self.axes[id(args[0])][axis] for axis in order)
                self._made.append(out)
        equation, *operands = args if name == "einsum" and isinstance(args[0], str) else ("", *args)
        if equation or (name in PRODUCTS and min(operand.ndim for operand in operands[:2]) > 2):
            for place, operand in enumerate(operands[:2]):
                if id(operand) in self.names:
                    self._look(operand, _stacked(equation, place, len(operands)) if equation else 0)
        return out

    def _look(self, operand: Tensor, stacked: int | None) -> None:
        """Notes a product in which the axis `stacked` of the operand is the stack."""
        axis = 0 if stacked is None else self.axes[id(operand)][stacked]
        if axis and not self.found:
            self.found = (
                f"{self.names[id(operand)]} is a stack of matrices along axis {axis}, but its role 'matrices' means "
                "maps in the last two axes, which Muon makes orthogonal one by one; let the first axis count them"
            )


def _order(name: str, arguments: Any) -> tuple[int, ...] | None:
    """Returns the axes of a tensor of three axes in the order of the result, or None for another operation."""
    order = list(AXES)
    if name in CASTS:
        return AXES
    if name in ("transpose", "swapaxes") and len(arguments) == 2:
        first, second = arguments
        order[first], order[second] = order[second], order[first]
        return tuple(order)
    if name == "permute" and arguments:
        given = arguments if isinstance(arguments[0], int) else arguments[0]
        return tuple(order[axis] for axis in given)
    return None


def _stacked(equation: str, place: int, operands: int) -> int | None:
    """Returns the axis that an operand of an einsum keeps and shares with the other; None if that is not one of three.

    An axis that is summed over and one that only this operand has make the other two: they are the matrix.
    """
    inputs, _, result = equation.replace(" ", "").partition("->")
    labels = inputs.split(",")
    if operands != 2 or len(labels) != 2 or "." in equation or not result or len(labels[place]) != len(AXES):
        return None
    mine, other = labels[place], labels[1 - place]
    kept = [axis for axis, label in enumerate(mine) if label in other and label in result]
    summed = [axis for axis, label in enumerate(mine) if label in other and label not in result]
    made = [axis for axis, label in enumerate(mine) if label not in other and label in result]
    return kept[0] if len(kept) == len(summed) == len(made) == 1 else None
