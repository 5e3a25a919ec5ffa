"""Old names of modules and classes, which keep working until 1.0 with a deprecation warning.

Files that Stable-Baselines3 pickled (model zips, replay buffers) name the modules of their classes, so a name that an
earlier version wrote must be importable for as long as such files are to load. See docs/adr/0013.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, final

MODULES = {
    "flowpolicies.algorithms.backpropagated": "flowpolicies.shell.backpropagated",
    "flowpolicies.algorithms.base": "flowpolicies.shell.algorithm",
    "flowpolicies.algorithms.config": "flowpolicies.shell.config",
    "flowpolicies.algorithms.fields": "flowpolicies.shell.fields",
    "flowpolicies.algorithms.knobs": "flowpolicies.shell.hyperparameters",
    "flowpolicies.algorithms.offline": "flowpolicies.shell.offline",
    "flowpolicies.algorithms.registry": "flowpolicies.shell.registry",
    "flowpolicies.algorithms.saved": "flowpolicies.shell.saved",
    "flowpolicies.algorithms.setup": "flowpolicies.shell.setup",
    "flowpolicies.algorithms.state": "flowpolicies.shell.state",
    "flowpolicies.core.terms": "flowpolicies.core.views",
    "flowpolicies.data.archive": "flowpolicies.data.dataset.npz",
    "flowpolicies.data.buffer": "flowpolicies.data.replay.buffer",
    "flowpolicies.data.cache": "flowpolicies.data.formats.memmap",
    "flowpolicies.data.checks": "flowpolicies.data.dataset.checks",
    "flowpolicies.data.columns": "flowpolicies.data.replay.columns",
    "flowpolicies.data.compact": "flowpolicies.data.dataset.compact",
    "flowpolicies.data.download": "flowpolicies.data.downloads.download",
    "flowpolicies.data.episodes": "flowpolicies.data.replay.episodes",
    "flowpolicies.data.files": "flowpolicies.data.downloads.files",
    "flowpolicies.data.fingerprint": "flowpolicies.data.dataset.rows",
    "flowpolicies.data.frames": "flowpolicies.data.dataset.dataframe",
    "flowpolicies.data.goals": "flowpolicies.data.replay.goals",
    "flowpolicies.data.hdf5": "flowpolicies.data.formats.hdf5",
    "flowpolicies.data.inspection": "flowpolicies.inspection",
    "flowpolicies.data.inspection.columns": "flowpolicies.inspection.columns",
    "flowpolicies.data.inspection.ends": "flowpolicies.inspection.ends",
    "flowpolicies.data.inspection.environment": "flowpolicies.inspection.environment",
    "flowpolicies.data.inspection.findings": "flowpolicies.inspection.findings",
    "flowpolicies.data.inspection.flags": "flowpolicies.inspection.flags",
    "flowpolicies.data.inspection.inspect": "flowpolicies.inspection.inspect",
    "flowpolicies.data.inspection.jumps": "flowpolicies.inspection.jumps",
    "flowpolicies.data.inspection.order": "flowpolicies.inspection.order",
    "flowpolicies.data.inspection.regression": "flowpolicies.inspection.regression",
    "flowpolicies.data.inspection.singles": "flowpolicies.inspection.singles",
    "flowpolicies.data.inspection.timing": "flowpolicies.inspection.timing",
    "flowpolicies.data.layout": "flowpolicies.spaces.layout",
    "flowpolicies.data.memmap": "flowpolicies.data.formats.memmap",
    "flowpolicies.data.npz": "flowpolicies.data.dataset.npz",
    "flowpolicies.data.pixels": "flowpolicies.data.replay.pixels",
    "flowpolicies.data.report": "flowpolicies.inspection.report",
    "flowpolicies.data.rows": "flowpolicies.data.dataset.rows",
    "flowpolicies.data.sb3": "flowpolicies.data.formats.sb3",
    "flowpolicies.data.scores": "flowpolicies.data.dataset.transforms",
    "flowpolicies.data.shards": "flowpolicies.data.replay.rotation",
    "flowpolicies.data.spaces": "flowpolicies.spaces.json",
    "flowpolicies.data.store": "flowpolicies.data.replay.store",
    "flowpolicies.data.trajectories": "flowpolicies.data.dataset.episodes",
    "flowpolicies.data.transfer": "flowpolicies.data.downloads.transfer",
    "flowpolicies.data.transforms": "flowpolicies.data.dataset.transforms",
    "flowpolicies.data.writers": "flowpolicies.data.sources",
    "flowpolicies.flows.grids": "flowpolicies.flows.solvers",
    "flowpolicies.flows.paths": "flowpolicies.flows.solvers",
    "flowpolicies.losses.distillation": "flowpolicies.losses.policy",
    "flowpolicies.losses.matching": "flowpolicies.losses.policy",
    "flowpolicies.networks.time": "flowpolicies.networks.mlp",
    "flowpolicies.training.demo": "flowpolicies.reproduction.demo",
    "flowpolicies.training.files": "flowpolicies.files",
    "flowpolicies.training.jobs": "flowpolicies.reproduction.jobs",
    "flowpolicies.training.preset_files": "flowpolicies.reproduction.preset_files",
    "flowpolicies.training.presets": "flowpolicies.reproduction.presets",
    "flowpolicies.training.published": "flowpolicies.reproduction.published",
    "flowpolicies.training.record": "flowpolicies.record",
    "flowpolicies.training.reproduce": "flowpolicies.reproduction.reproduce",
    "flowpolicies.training.scores": "flowpolicies.reproduction.scores",
    "flowpolicies.training.values": "flowpolicies.reproduction.preset_files",
}
"""Old module name -> new one."""


@final
class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its old name; asked first, or a moved package would import its modules a second time."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """None: importlib makes an empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module of the new name in place, so that a class is one class whichever name it is imported by."""
        old, new = module.__name__, MODULES[module.__name__]
        warnings.warn(f"{old} is now {new}; the old name works until 1.0.", DeprecationWarning, stacklevel=_STACK_LEVEL)
        sys.modules[old] = importlib.import_module(new)


_STACK_LEVEL = 2
"""The import statement: warnings skip the frames of importlib."""


def install() -> None:
    """Adds the finder for moved modules, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())


def moved_names(module: str, names: Mapping[str, str], stacklevel: int = 2) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that moved: old name -> "new.module:name".

    The warning is about the line `stacklevel - 1` calls above `__getattr__`.
    """

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        text = f"{module}.{name} is now {home}.{new}; the old name works until 1.0."
        warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)
        return getattr(importlib.import_module(home), new)

    return __getattr__
