"""The algorithms, one file per paper.

Every module in this folder is imported, which adds its algorithms to `ALGORITHMS`; their classes and their Configs
can be imported from here. `__init__.pyi`, which type checkers and editors read, is generated (`make generate`).
"""

import importlib
import pkgutil

from flowpolicies.shell.algorithm import OfflineAlgorithm as OfflineAlgorithm
from flowpolicies.shell.registry import ALGORITHMS as ALGORITHMS
from flowpolicies.shell.registry import get_algorithm as get_algorithm
from flowpolicies.shell.registry import make as make

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
_classes = [cls for cls in ALGORITHMS.values() if cls.__module__.startswith(f"{__name__}.")]
globals().update({cls.__name__: cls for algorithm in _classes for cls in (algorithm, algorithm.Config)})

__all__ = [name for name in globals() if not name.startswith("_") and name not in ("importlib", "pkgutil")]
