"""Classes, functions and values that are named on a command line."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable
from functools import reduce
from typing import Any


def load_object(name: str) -> Any:
    """The class or function `MODULE:NAME`.

    Raises:
        ValueError: if the name has another form, or the module has no such object.
    """
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ValueError(f"expected MODULE:NAME such as my_package:MyAlgo, got {name!r}")
    try:
        return reduce(getattr, path.split("."), importlib.import_module(module))
    except AttributeError as error:
        raise ValueError(f"the module {module!r} has no {path!r}") from error


def arguments_of(given: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` as a dict; values are Python literals, or calls of `dict` with literals.

    Raises:
        ValueError: if an argument has another form.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            if not (name.isidentifier() and equals):
                raise ValueError("there is no '=' behind a name")
            found[name] = _literal(ast.parse(value, mode="eval").body)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"expected NAME=VALUE with a Python literal, got {text!r}: {error}") from error
    return found


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        named = {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
        if None in named:
            raise ValueError("dict takes keywords only")
        return named
    return ast.literal_eval(node)
