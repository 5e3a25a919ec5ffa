"""The changes that a mistake could make to one line of a loss, a flow or a sampler.

A mutant is one changed expression. Names follow the code of the package: losses read networks through the views
`nets.online`, `nets.frozen` and `nets.target`, and weigh rows by `batch.valid`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import NamedTuple

VIEWS = ("online", "frozen", "target")
"""Attributes of `Networks` that are exchanged for each other."""
EXCHANGED = {
    "mean": "sum",
    "sum": "mean",
    "amax": "amin",
    "amin": "amax",
    "max": "min",
    "min": "max",
    "argmax": "argmin",
    "argmin": "argmax",
    "maximum": "minimum",
    "minimum": "maximum",
    "observations": "next_observations",
    "next_observations": "observations",
    "next_actions": "actions",
}
"""Attribute -> the attribute that replaces it."""
DROPPED = ("detach", "clamp", "abs", "square", "sqrt", "flip", "roll")
"""Methods whose call is replaced by the tensor that it is called on."""
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
LEFT_ALONE = ("isinstance", "cast", "range", "getattr", "hasattr", "super", "zip")
"""Functions whose arguments are not exchanged or left out."""
COMMUTATIVE = ("min", "max", "minimum", "maximum", "addcmul")
"""Functions whose arguments are not exchanged, because most of them may be."""
IDLE_KEYWORDS = ("strict", "device")
"""Arguments that change no number: whether lengths are checked, and where a tensor is."""
SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
"""Parts of functions that are no part of an equation, such as the texts of errors."""
NOT_BODIES = ("annotation", "returns", "decorator_list")
"""Fields of functions and assignments that are no part of an equation either; nor are the defaults of parameters."""


class Place(NamedTuple):
    """Where an expression stands in the tree of its file: a field of a node, or an item of such a field."""

    parent: ast.AST
    field: str
    index: int | None

    def set(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class Mutant:
    """One changed expression of one file."""

    path: str
    """The file, below the folder of the package."""
    function: str
    """Qualified name of the function, or of the constant of the module."""
    change: str
    """The expression before and after, and its number if the function has several changes of these words."""
    lines: tuple[int, ...]
    """The lines of the statement, or those that read the constant."""
    place: Place
    replacement: ast.AST
    tree: ast.Module
    """The tree of the file, in which the expression is replaced to make the mutant."""

    @property
    def key(self) -> str:
        """How lists and results name it. It does not depend on other functions of the file."""
        return f"{self.path}::{self.function}: {self.change}"

    def code(self) -> CodeType:
        """The changed file, compiled. It changes the tree, so only one mutant of a tree can be made."""
        self.place.set(self.replacement)
        ast.fix_missing_locations(self.tree)
        return compile(self.tree, self.path, "exec")


def mutants(path: Path, name: str) -> list[Mutant]:
    """All mutants of a file that lists call `name`."""
    tree = ast.parse(path.read_text())
    seen: Counter[str] = Counter()
    found = []
    for function, lines, place, node in _expressions(tree):
        before = ast.unparse(node)
        for replacement in _replacements(node, place):
            change = f"{_short(before)} -> {_short(ast.unparse(replacement))}"
            seen[f"{function}: {change}"] += 1
            times = seen[f"{function}: {change}"]
            number = f" ({times})" if times > 1 else ""
            found.append(Mutant(name, function, change + number, lines, place, replacement, tree))
    return found


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else f"{text[:60]} ... {text[-25:]}"


Lines = tuple[int, ...]
Found = tuple[Lines, Place, ast.AST]
"""The lines of a statement, and an expression in it with its place."""


def _expressions(tree: ast.Module) -> Iterator[tuple[str, Lines, Place, ast.AST]]:
    """Every expression in the body of a function, and in a constant of the module, with the name of its owner."""
    for name, node in _owners(tree, ""):
        if isinstance(node, ast.Assign):
            readers = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name]
            yield name, tuple(readers), Place(node, "value", None), node.value
            continue
        for found in _below(node, _lines(node)):
            yield name, *found


def _owners(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _owners(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign) and isinstance(node, ast.Module) and _is_number(child.value):
            yield ast.unparse(child.targets[0]), child


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _lines(statement: ast.stmt) -> Lines:
    """The lines of a statement, without those of the statements inside it."""
    body = getattr(statement, "body", [])
    last = body[0].lineno - 1 if body else statement.end_lineno or statement.lineno
    return tuple(range(statement.lineno, max(last, statement.lineno) + 1))


def _below(node: ast.AST, lines: Lines) -> Iterator[Found]:
    for field, value in ast.iter_fields(node):
        if field in NOT_BODIES or isinstance(value, ast.arguments):
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in items:
            if not isinstance(child, ast.AST) or isinstance(child, SKIPPED) or _is_idle(child):
                continue
            if isinstance(child, ast.expr):
                yield lines, Place(node, field, index), child
            yield from _below(child, _lines(child) if isinstance(child, ast.stmt) else lines)


def _is_idle(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg in IDLE_KEYWORDS


def _replacements(node: ast.AST, place: Place) -> Iterator[ast.AST]:
    """The changed forms of an expression, each of them once."""
    parts = (_names(node), _calls(node), _arithmetic(node), _logic(node, place), _numbers(node, place))
    seen = {ast.unparse(node)}
    for changed in (changed for part in parts for changed in part):
        text = ast.unparse(changed)
        if text not in seen:
            seen.add(text)
            yield changed


def _names(node: ast.AST) -> Iterator[ast.AST]:
    """Another view, another reduction, the other observations."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        of_networks = isinstance(node.value, ast.Name) and node.value.id == "nets"
        others = [view for view in VIEWS if view != node.attr] if of_networks and node.attr in VIEWS else []
        others += [EXCHANGED[node.attr]] if node.attr in EXCHANGED else []
        yield from (ast.Attribute(node.value, other, node.ctx) for other in others)


def _calls(node: ast.AST) -> Iterator[ast.AST]:
    """A method that is not called, neighbouring arguments in the other order, an argument that is left out."""
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED:
        yield node.func.value
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in LEFT_ALONE:
        return
    plain = node.args[: next((i for i, arg in enumerate(node.args) if isinstance(arg, ast.Starred)), None)]
    for i in range(len(plain) - 1 if name not in COMMUTATIVE else 0):
        exchanged = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield ast.Call(node.func, exchanged, node.keywords)
    if node.args and isinstance(node.args[-1], ast.Attribute):
        yield ast.Call(node.func, node.args[:-1], node.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, *IDLE_KEYWORDS):
            yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def _arithmetic(node: ast.AST) -> Iterator[ast.AST]:
    """Another operator, and a product without one of its factors."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Mult):
            pairs = ((node.left, node.right), (node.right, node.left))
            yield from (other for factor, other in pairs if isinstance(factor, ast.Name | ast.Attribute))


def _logic(node: ast.AST, place: Place) -> Iterator[ast.AST]:
    """A comparison or a condition that is the opposite, and `or` for `and`."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield node.operand
    elif place.field == "test":
        yield ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]  # A test is an expression.


def _numbers(node: ast.AST, place: Place) -> Iterator[ast.AST]:
    """Another number: 1 for 0 and 0 for 1, the next integer, twice a float, and a bound with the other sign."""
    if isinstance(node, ast.Constant) and not (isinstance(place.parent, ast.UnaryOp)):
        value = node.value
        if isinstance(value, bool):
            yield ast.Constant(not value)
        elif isinstance(value, int | float):
            following = value + 1 if isinstance(value, int) else 2 * value
            yield ast.Constant({0: type(value)(1), 1: type(value)(0)}.get(value, following))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        # An axis of -1 is often the axis 1 as well; axis 0 is another.
        yield ast.Constant(0) if node.operand.value == 1 and not _is_bound(place) else node.operand


def _is_bound(place: Place) -> bool:
    function = place.parent.func if isinstance(place.parent, ast.Call) else None
    return isinstance(function, ast.Attribute) and function.attr in ("clamp", "clip")
