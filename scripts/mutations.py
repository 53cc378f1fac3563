"""Finds all mutations of a Python source: small mistakes that the tests of the contract should notice.

Changed are comparisons (`<` to `<=`, `==` to `!=`, `is` to `is not`, `and` to `or`, a negated condition), offsets
(numbers one up or down, `+` to `-`, `*` to `/`), reductions (`sum` to `mean`, `max` to `min`, zeros to ones, the order
of a concatenation), flags (`True` to `False`) and statements left out (in-place operations, `x = f(x)`, `break`).

Not changed, because no test should depend on them, are annotations, docstrings, texts, `raise` statements, decorators
other than `no_grad`, code under `TYPE_CHECKING`, and the `strict=True` of a `zip`, which is an assertion. Nor is what
only chooses which input is tried: the arguments of `DRAWS`, a `seed` (a keyword, a default, the `range` of a loop), and
whole numbers above 2 in the value of a name in capitals, which is a constant or a size such as `T`. Nor is the choice
between two texts of which one is an f-string: a part of a message.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_PAIRS = [
    ("sum", "mean"),
    ("max", "min"),
    ("amax", "amin"),
    ("argmax", "argmin"),
    ("any", "all"),
    ("cos", "sin"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("new_zeros", "new_ones"),
]
FUNCTIONS = {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
# Functions whose arguments are the sizes and seeds of inputs; the first three are those of the checks.
DRAWS = {"tokens", "own_tokens", "random_split", "manual_seed", "rand", "randint", "randn"}
SMALL = 2  # larger whole numbers in a constant or in a size are sizes
BUILTINS = {name: FUNCTIONS[name] for name in ("max", "min", "any", "all")}  # there is no builtin `mean`


@dataclass(frozen=True)
class Mutation:
    """Bytes `start` to `end` of a source, which read `before`, become `after`; `line` counts from 1."""

    line: int
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """Return the source with this mutation."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutations(source: bytes) -> list[Mutation]:
    """Return all mutations of a source, in its order."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutation: (mutation.start, mutation.end))


class _Finder(ast.NodeVisitor):
    """Walks the syntax tree and collects mutations as replacements of bytes, so that line numbers do not change."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.found: list[Mutation] = []
        self.sizes = False  # True in the value of a name in capitals
        self.line_starts = [0]
        for line in source.splitlines(keepends=True):
            self.line_starts.append(self.line_starts[-1] + len(line))

    def note(self, node: ast.expr | ast.stmt, after: str, *, last: int | None = None) -> None:
        """Add a mutation that replaces `node`, or only its `last` bytes, by `after`."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        end = self.line_starts[node.end_lineno - 1] + node.end_col_offset
        start = self.line_starts[node.lineno - 1] + node.col_offset if last is None else end - last
        line = node.lineno if last is None else node.end_lineno
        self.found.append(Mutation(line, start, end, self.source[start:end].decode(), after))

    def note_expression(self, node: ast.expr, after: ast.expr) -> None:
        self.note(node, f"({ast.unparse(after)})")

    # Left alone -------------------------------------------------------------------------------------------------------

    def leave(self, node: ast.AST) -> None:
        """Skip a node with all its children."""

    visit_JoinedStr = visit_Raise = visit_arg = leave

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assigned(node.target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self.loop(node)
        self.visit_all([*node.body, *node.orelse])

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.loop(node)
        self.visit_all(node.ifs)

    def loop(self, node: ast.For | ast.comprehension) -> None:
        if not (isinstance(node.target, ast.Name) and node.target.id == "seed"):
            self.visit(node.iter)

    def visit_arguments(self, node: ast.arguments) -> None:
        named = node.posonlyargs + node.args
        pairs = [*zip(named[len(named) - len(node.defaults) :], node.defaults, strict=True)]
        pairs += [(name, value) for name, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value]
        self.visit_all([value for name, value in pairs if name.arg != "seed"])

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "seed":
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)

    def visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    # Statements -------------------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            if ast.unparse(decorator) == "torch.no_grad()":
                self.note(decorator, "(lambda function: function)")
        self.visit_all([node.args, *node.body])

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.condition(node.test)
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.note(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.note(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        (target, *_) = node.targets
        if isinstance(target, ast.Name) and target.id == "__all__":
            return
        used = {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}
        if isinstance(target, ast.Subscript) or (isinstance(target, ast.Name) and target.id in used):
            self.note(node, "pass")
        self.visit_all(node.targets)
        self.assigned(target, node.value)

    def assigned(self, target: ast.expr, value: ast.expr) -> None:
        """Visit an assigned value; in that of a name in capitals, larger whole numbers are left alone."""
        self.sizes = all(name.id.isupper() for name in ast.walk(target) if isinstance(name, ast.Name))
        self.visit(value)
        self.sizes = False

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        sizes, self.sizes = self.sizes, False  # an axis or an index is no size
        self.visit(node.slice)
        self.sizes = sizes

    def visit_Break(self, node: ast.Break) -> None:
        self.note(node, "pass")

    # Expressions ------------------------------------------------------------------------------------------------------

    def condition(self, test: ast.expr) -> None:
        """Negate a condition, unless it is a comparison, which has its own mutations."""
        if not isinstance(test, (ast.Compare, ast.BoolOp, ast.Constant)):
            self.note_expression(test, ast.UnaryOp(ast.Not(), test))

    def visit_IfExp(self, node: ast.IfExp) -> None:
        sides = (node.body, node.orelse)
        if all(map(_is_text, sides)) and any(isinstance(side, ast.JoinedStr) for side in sides):
            return
        self.condition(node.test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, operator in enumerate(node.ops):
            changed = copy.copy(node)
            changed.ops = [*node.ops[:i], COMPARISONS[type(operator)](), *node.ops[i + 1 :]]
            self.note_expression(node, changed)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.note_expression(node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC:
            self.note_expression(node, ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        value = node.operand.value if isinstance(node.operand, ast.Constant) else None
        if isinstance(node.op, ast.USub) and isinstance(value, int):
            self.note(node, f"({1 - value})")
            self.note(node, f"(-{value + 1})")
            return
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.note(node, str(not node.value))
        elif isinstance(node.value, int) and self.sizes and node.value > SMALL:
            return
        elif isinstance(node.value, int):
            self.note(node, f"({node.value - 1})")
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            self.note(node, f"({node.value + 1})")

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in FUNCTIONS:
            self.note(function, FUNCTIONS[function.attr], last=len(function.attr))
        elif isinstance(function, ast.Name) and function.id in BUILTINS:
            self.note(function, BUILTINS[function.id])
        if (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) in DRAWS:
            self.visit(function)
            return
        if isinstance(function, ast.Attribute) and function.attr == "cat":
            parts = node.args[0]
            if isinstance(parts, ast.List) and len(parts.elts) == 2:
                self.note_expression(parts, ast.List(parts.elts[::-1], ast.Load()))
        for keyword in node.keywords:
            if keyword.arg == "reduction" and isinstance(keyword.value, ast.Constant):
                self.note(keyword.value, repr(FUNCTIONS[str(keyword.value.value)]))
        self.visit_all([function, *node.args, *(keyword for keyword in node.keywords if keyword.arg != "strict")])


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
