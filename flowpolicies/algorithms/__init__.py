"""The algorithms, one file per paper.

Every module in this folder is imported when a name of this package is used for the first time, which adds its
algorithms to `ALGORITHMS`; their classes and their Configs can be imported from here. `__init__.pyi`, which type
checkers and editors read, is generated (`make generate`).
"""

import importlib
import pkgutil
from typing import Any


def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    registry = importlib.import_module("flowpolicies.shell.registry")
    names = ("OfflineAlgorithm", "ALGORITHMS", "get_algorithm", "make")
    found = {name: getattr(registry, name) for name in names}
    classes = [cls for cls in registry.ALGORITHMS.values() if cls.__module__.startswith(f"{__name__}.")]
    found |= {cls.__name__: cls for algorithm in classes for cls in (algorithm, algorithm.Config)}
    globals().update(found, __all__=list(found))


def __getattr__(name: str) -> Any:
    if name == "__all__" or not name.startswith("__"):
        _import_all()
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
