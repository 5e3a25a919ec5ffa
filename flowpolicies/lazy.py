"""Packages whose names are imported when they are used for the first time.

Importing torch and Stable-Baselines3 takes seconds, and the command line prints help and most errors without them. The
names of such a package are listed once, in its `__init__.pyi`, which type checkers and editors read as well.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flowpolicies.moved import moved_names


class LazyPackage(ModuleType):
    """The class of a package that `make_lazy` has changed."""

    _homes: Mapping[str, str]
    """Name that the package exports -> the module that the name comes from."""
    _stars: tuple[str, ...]
    """Packages all of whose names the package exports."""
    _moved: Any
    """Finds names that moved to another package."""

    def __getattr__(self, name: str) -> Any:
        if name in self._homes:
            found = self.__dict__[name] = getattr(importlib.import_module(self._homes[name]), name)
            return found
        if name == "__all__":
            return [one for one in dir(self) if not one.startswith("_")]
        if not name.startswith("__"):
            if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
                return importlib.import_module(f"{self.__name__}.{name}")
            for package in map(importlib.import_module, self._stars):
                if name in package.__all__:
                    return getattr(package, name)
        return self._moved(name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a module binds it in its package, where a function may have its name: `training.train`.
        if not (name in self._homes and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> Iterable[str]:
        stars = (name for package in self._stars for name in importlib.import_module(package).__all__)
        return sorted({*super().__dir__(), *self._homes, *stars})


def make_lazy(package: str, moved: Mapping[str, str] | None = None) -> None:
    """Makes the names in the `__init__.pyi` of a package available, each of which is imported on its first use.

    Args:
        package: name of the package, whose `__init__` calls this.
        moved: names that moved to other packages, as for `moved_names`.
    """
    module: Any = sys.modules[package]
    stub = ast.parse(Path(str(module.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [
        (str(node.module), one.name) for node in stub.body if isinstance(node, ast.ImportFrom) for one in node.names
    ]
    module._homes = {name: home for home, name in imports if name != "*"}
    module._stars = tuple(home for home, name in imports if name == "*")
    module._moved = moved_names(package, moved or {}, stacklevel=3)
    module.__class__ = LazyPackage
