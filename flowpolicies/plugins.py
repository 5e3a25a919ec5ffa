"""Everything that has a name and may come from another package or from a notebook: one registry for each kind.

A name gets into a registry in one of two ways:

- It is declared, for example with `register_sampler("mellow")`. The name is known in the process that runs the line.
- It is an entry point of an installed package, in the group of the registry. The name is known in every process, and
  the package is imported when the name is used for the first time.

Names of flowpolicies itself cannot be taken over. The page docs/plugins.md has an example of each kind.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache, partial
from importlib.metadata import EntryPoint, EntryPoints, distributions, entry_points, packages_distributions
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, TypeVar, final

from flowpolicies.messages import did_you_mean

T = TypeVar("T")

OURS = "flowpolicies"
"""Name of this distribution and of its import package."""


@final
class Registry(Generic[T]):
    """The objects of one kind, by name.

    Args:
        kind: what messages call one of them, such as "sampler".
        wanted: what such an object must be, for messages, such as "a dataclass".
        accepts: tells for a name and an object whether the object is what it must be.
        group: group of entry points in which other packages name theirs.
        declared: name to object of those that were declared; a registry of algorithms shares it with the public dict.
        built_in: name to "module:object" of what flowpolicies imports only when the name is used.

    Examples:
        >>> from flowpolicies.samplers import SAMPLERS  # the registry of samplers
        >>> SAMPLERS.find("Integrate")(steps=5)
        Integrate(field='actor_flow', steps=5, method='euler')
    """

    def __init__(
        self,
        kind: str,
        group: str,
        wanted: str,
        accepts: Callable[[str, Any], bool],
        declared: dict[str, T] | None = None,
        built_in: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kind, self.group, self.wanted, self._accepts = kind, group, wanted, accepts
        self.declared: dict[str, T] = {} if declared is None else declared
        self.built_in = built_in

    def register(self, name: str, thing: T) -> None:
        """Declares an object. The same class or function may be declared again, as when a notebook cell is run twice.

        Raises:
            TypeError: if the object is not of this kind.
            ValueError: if the name belongs to flowpolicies, to another module or to another package.
        """
        self.check_free(name, thing)
        self.declared[name] = thing

    def check_free(self, name: str, thing: Any) -> None:
        """Raises what `register` would raise, and declares nothing."""
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise ValueError(f"the name of a {self.kind} must begin with a letter and hold no spaces, got {name!r}")
        if not self._accepts(name, thing):
            raise TypeError(f"the {self.kind} {name!r} must be {self.wanted}, got {thing!r}")
        taken = self.home(name)
        if taken is not None and taken != home_of(thing):
            raise ValueError(f"the {self.kind} {name!r} is already declared by {'.'.join(taken)}. Choose another name.")
        if taken is None and not _is_ours(home_of(thing)[0]):
            for point in self.third_party().get(name, []):
                if _top(point.module) != _top(home_of(thing)[0]):
                    raise ValueError(
                        f"the {self.kind} {name!r} is provided by the package {_distribution(point)}. "
                        "Choose another name."
                    )

    def home(self, name: str) -> tuple[str, str] | None:
        """Module and qualified name of what is built in or declared under a name; None if nothing is."""
        if name in self.built_in:
            module, _, path = self.built_in[name].partition(":")
            return module, path
        return home_of(self.declared[name]) if name in self.declared else None

    def register_classes(self, namespace: Mapping[str, Any]) -> None:
        """Declares the classes of a module's namespace that are of this kind, each under its own name."""
        for name, thing in list(namespace.items()):
            if isinstance(thing, type) and self._accepts(name, thing):
                self.register(name, thing)  # type: ignore[arg-type]  # T is a type here, which `accepts` knows.

    def find(self, name: str) -> T:
        """The object of a name. The package of an entry point is imported now.

        Raises:
            ValueError: for an unknown name, a name that two packages provide, or an entry point that does not lead to
                an object of this kind.
            ImportError: if the package of the entry point cannot be imported.
        """
        if name in self.declared:
            return self.declared[name]
        self.check_known(name)
        if name in self.built_in:
            module, path = self.home(name) or ("", "")
            found: T = attrgetter(path)(importlib.import_module(module))
            return found
        points = self.third_party()[name]
        if len(points) > 1:
            packages = ", ".join(sorted(map(_distribution, points)))
            raise ValueError(
                f"{self.kind} '{name}' is provided more than once, by {packages}. Uninstall all but one of them."
            )
        return self._load(points[0])

    def check_known(self, name: str) -> None:
        """Raises a ValueError for an unknown name, with the known ones; imports nothing."""
        if name not in self:
            known = self.names()
            listed = ", ".join(known) or "none. If flowpolicies is run from a checkout, install it: pip install -e ."
            raise ValueError(f"unknown {self.kind} '{name}' (known: {listed}).{did_you_mean(str(name), known)}")

    def __contains__(self, name: object) -> bool:
        """Whether the name is known; imports nothing."""
        return name in self.declared or name in self.built_in or name in self.third_party()

    def names(self) -> dict[str, str]:
        """Every known name, sorted, with the package that provides it; imports nothing."""
        found = {name: ", ".join(map(_distribution, points)) for name, points in self.third_party().items()}
        found |= {name: package_of(thing) or f"module {home_of(thing)[0]}" for name, thing in self.declared.items()}
        found |= dict.fromkeys(self.built_in, OURS)
        return dict(sorted(found.items()))

    def is_built_in(self, name: str) -> bool:
        """Whether the name belongs to flowpolicies itself."""
        return name in self.built_in or (name in self.declared and _is_ours(home_of(self.declared[name])[0]))

    def import_built_in(self) -> None:
        """Imports the modules of everything that is built in."""
        for home in self.built_in.values():
            importlib.import_module(home.partition(":")[0])

    def third_party(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name, without those whose name is built in; imports nothing.

        A name has several where several packages provide it. Those of flowpolicies' own integrations take precedence.
        """
        found: dict[str, dict[str, EntryPoint]] = {}
        for point in sorted(_entry_points(self.group), key=lambda point: point.name):
            if not self.is_built_in(point.name):
                found.setdefault(point.name, {})[point.value] = point  # Once, if a package is on the path twice.
        ours = {name: [p for p in points.values() if _distribution(p) == OURS] for name, points in found.items()}
        return {name: ours[name] or list(points.values()) for name, points in found.items()}

    def name_of(self, thing: T) -> str | None:
        """The name under which a class is known, declared or by an entry point; None if it has none."""
        return next((name for name, _ in self._at(home_of(thing))), None)

    def find_at(self, home: tuple[str, str]) -> T | None:
        """The registered class of a module and qualified name; None if no name leads there."""
        return next((thing for _, thing in self._at(home)), None)

    def _at(self, home: tuple[str, str]) -> Iterator[tuple[str, T]]:
        """Names that lead to a class. Of entry points, only those of its own top-level package are imported."""
        yield from ((name, thing) for name, thing in self.declared.items() if home_of(thing) == home)
        for name, points in self.third_party().items():
            loaded = (_try_to_load(point) for point in points if _top(point.module) == _top(home[0]))
            yield from ((name, thing) for thing in loaded if home_of(thing) == home)

    def _load(self, point: EntryPoint) -> T:
        package = _distribution(point)
        try:
            loaded: T = point.load()
        except Exception as error:  # Anything may go wrong in the code of others.
            needed = f"{package}[{point.name}]" if package == OURS else package
            raise ImportError(
                f"{self.kind} '{point.name}' cannot be imported from the package {package} ({error}). "
                f'Install what it needs: pip install "{needed}"'
            ) from error
        if not self._accepts(point.name, loaded):
            raise ValueError(
                f"the entry point '{point.name}' of the package {package} must lead to {self.wanted}; "
                f"'{point.value}' is {loaded!r}."
            )
        return loaded


def home_of(thing: Any) -> tuple[str, str]:
    """Module and qualified name of a class or function; those of the function inside for a `functools.partial`."""
    while isinstance(thing, partial):
        thing = thing.func
    module = str(getattr(thing, "__module__", ""))
    # A worker process runs the user's script once more, under another name.
    return "__main__" if module == "__mp_main__" else module, str(getattr(thing, "__qualname__", type(thing).__name__))


def package_of(thing: Any) -> str | None:
    """Name of the installed distribution that a class or function comes from, as pip spells it.

    None for a notebook, for a script, and for a module that no distribution claims, or more than one.
    """
    top = _top(home_of(thing)[0])
    return OURS if top == OURS else _package_of_module(top)


@cache
def _package_of_module(top: str) -> str | None:
    """Distribution of a top-level module. Entry points are asked first: they also know editable installs."""
    points = (point for distribution in distributions() for point in distribution.entry_points)
    found = {_distribution(p) for p in points if p.group.startswith(f"{OURS}.") and _top(p.module) == top}
    found = found or set(packages_distributions().get(top, ()))
    return re.sub(r"[-_.]+", "-", found.pop()).lower() if len(found) == 1 else None


def import_package_of(module: str) -> None:
    """Imports what installed packages name in entry points of flowpolicies, if it has the top-level name of a module.

    Nothing happens for other modules, and none is imported by its own name.
    """
    if not _is_ours(module):
        for point in (point for distribution in distributions() for point in distribution.entry_points):
            if point.group.startswith(f"{OURS}.") and _top(point.module) == _top(module):
                _try_to_load(point)


def _entry_points(group: str) -> EntryPoints:
    """The entry points of a group in all installed packages.

    They are read again when a folder of the path has changed: reading takes milliseconds, and a command asks dozens of
    times.
    """
    return _read_entry_points(group, tuple(map(_state_of, sys.path)))


@lru_cache(maxsize=32)
def _read_entry_points(group: str, path: tuple[tuple[int, ...], ...]) -> EntryPoints:
    """The entry points of a group, for a path in this state."""
    return entry_points(group=group)


def _state_of(folder: str) -> tuple[int, ...]:
    """What changes when a package is installed into a folder of the path or removed, and when it is another folder."""
    try:
        state = os.stat(folder or os.curdir)
    except OSError:  # It does not exist.
        return ()
    return state.st_dev, state.st_ino, state.st_mtime_ns


def _try_to_load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception:  # A broken entry point is reported to those who use its name.
        return None


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_ours(module: str) -> bool:
    return _top(module) == OURS


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"
