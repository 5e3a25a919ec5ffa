"""Finds published settings by name, such as "ogbench/antmaze-large-navigate-task3"; see docs/presets.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from flowpolicies.messages import did_you_mean
from flowpolicies.reproduction.preset_files import (
    SUITES,
    EnvironmentPresets,
    Preset,
    all_environments,
    plain_name,
    read_suite,
    split_task,
)
from flowpolicies.shell.catalog import name_of

AUTO = "auto"
"""Value of --preset for the preset that fits the dataset or the environment."""
SHOWN = 8
"""Number of names that a message lists at most."""


def load_preset(algorithm: str, name: str, addresses: Sequence[str] = ()) -> Preset:
    """Finds the preset of an algorithm by name.

    Args:
        algorithm: name of the algorithm.
        name: "SUITE/ENVIRONMENT", with "-task3" at the end for a task other than the default one. The name of a
            dataset, as in "ogbench/antmaze-large-navigate-singletask-task3-v0", is understood as well.
        addresses: datasets or environments whose task is used if the name does not have one.

    Raises:
        ValueError: for an unknown name, or if the algorithm has no preset of this name; the message lists names that
            exist.
    """
    algorithm = name_of(algorithm)
    suite, _, rest = name.partition("/")
    if suite not in SUITES or not rest:
        raise ValueError(
            f"unknown preset '{name}': names are SUITE/ENVIRONMENT, and the suites are {', '.join(SUITES)}."
            f"{_similar(name)}"
        )
    key, task = split_task(rest)
    found = [environment for environment in read_suite(suite) if environment.answers_to(key)]
    if not found:
        raise ValueError(f"unknown preset '{name}'.{_similar(name)} `flowpolicies list presets` shows all.")
    fitting = [environment for environment in found if algorithm in environment.algorithms()]
    if not fitting:
        for environment in found:
            if (other := environment.same_as(algorithm)) is not None:
                raise ValueError(
                    f"{algorithm} has no preset '{name}': the published runs there are plain {other}, because the "
                    f"coefficient that distinguishes the two is 0. Train {other} with this preset."
                )
        raise ValueError(f"{algorithm} has no preset '{name}'. {_places(algorithm)}")
    if len(fitting) > 1:
        options = ", ".join(f"{suite}/{environment.name}" for environment in fitting)
        raise ValueError(f"the preset name '{name}' fits {options}. Give the name of one of them.")
    if task is None:
        named = [split_task(address)[1] for address in addresses if fitting[0].is_meant_by(address)]
        task = next((one for one in named if one is not None), None)
    return fitting[0].preset(algorithm, task)


def find_preset(algorithm: str, addresses: Sequence[str]) -> Preset:
    """Finds the preset of an algorithm for datasets or environments, in the first suite that has their task.

    Args:
        algorithm: name of the algorithm.
        addresses: addresses of datasets or environments; the first one for which there is a preset decides.

    Raises:
        ValueError: if there is no such preset, or no address is given.
    """
    algorithm = name_of(algorithm)
    if not addresses:
        raise ValueError("--preset auto chooses by --dataset or --env: give one of them, or name the preset.")
    for address in addresses:
        task = split_task(address)[1]
        found = [one for one in all_environments() if one.is_meant_by(address) and algorithm in one.algorithms()]
        with_task = [one for one in found if (task or one.table.get("default_task")) in one.tasks_of(algorithm)]
        if found:
            return (with_task or found)[0].preset(algorithm, task)
    hint = did_you_mean(split_task(addresses[0])[0].replace(":", "/"), _names(algorithm))
    raise ValueError(
        f"--preset auto: {algorithm} has no preset for '{addresses[0]}'.{hint} {_places(algorithm)} "
        "Without --preset it trains with its defaults."
    )


def check_same_environment(preset: Preset, address: str) -> None:
    """Raises a ValueError if an address names an environment or a task that the preset is not for.

    Addresses of other sources, such as files, do not name an environment and are always accepted.
    """
    source, _, name = address.partition(":")
    own_source, _, own_name = preset.dataset.partition(":")
    same = source not in _benchmarks()
    if source == own_source:
        key, task = split_task(name)
        same = _scene(key) == _scene(split_task(own_name)[0]) and (task or preset.default_task) == preset.task
    if not same:
        raise ValueError(
            f"preset '{preset.name}' is for '{preset.dataset}', not for '{address}'. "
            "Give the preset of that environment, or let --preset auto choose it."
        )


def list_presets() -> dict[str, tuple[str, ...]]:
    """Names of all presets, without tasks -> algorithms that have a preset of this name."""
    return {f"{one.suite}/{one.name}": tuple(one.algorithms()) for one in all_environments()}


def iterate_presets() -> Iterator[Preset]:
    """All presets of all algorithms and tasks."""
    for environment in all_environments():
        for algorithm in environment.algorithms():
            for task in environment.tasks_of(algorithm):
                yield environment.preset(algorithm, task)


def has_preset(algorithm: str, name: str) -> bool:
    """Whether an algorithm has a preset of this full name, such as "ogbench/antmaze-large-navigate-task3"."""
    environment, task = _environment(name)
    return algorithm in environment.algorithms() and task in environment.tasks_of(algorithm)


def stand_in(algorithm: str, name: str) -> str:
    """Name of the algorithm that the published runs of `algorithm` are equal to in an environment; mostly itself."""
    environment, _ = _environment(name)
    return environment.same_as(algorithm) or algorithm


def settings_of_environment(algorithm: str, name: str) -> Preset:
    """The settings that a suite gives to all algorithms in an environment, for an algorithm without a preset there."""
    environment, task = _environment(name)
    return environment.preset(algorithm, task, only_common=True)


def tasks_of(name: str) -> tuple[int, ...]:
    """Tasks of "SUITE/ENVIRONMENT"; empty if the environment has no tasks, or if the name includes a task."""
    environment, task = _environment(name)
    return () if task is not None else tuple(environment.table.get("tasks", ()))


def _environment(name: str) -> tuple[EnvironmentPresets, int | None]:
    """Environment and task of a full name that exists."""
    suite, _, rest = name.partition("/")
    key, task = split_task(rest)
    return next(one for one in read_suite(suite) if one.name == key), task


def _scene(key: str) -> str:
    """The name of an environment without the kind of its data, such as "-navigate"."""
    return re.sub(r"-(navigate|stitch|explore|play|noisy)$", "", plain_name(key))


def _benchmarks() -> set[str]:
    """Sources, such as "ogbench", whose addresses name an environment."""
    return {environment.table["dataset"].partition(":")[0] for environment in all_environments()}


def _similar(name: str) -> str:
    """A hint at the preset with the most similar name, or an empty string."""
    known = list(list_presets())
    hint = did_you_mean(split_task(name)[0], known)
    if not hint:
        key = plain_name(split_task(name.rpartition("/")[2])[0])
        same = [other for other in known if other.partition("/")[2] == key]
        hint = f" Did you mean {same[0]!r}?" if same else ""
    return hint


def _names(algorithm: str) -> list[str]:
    """Names of the presets of an algorithm."""
    return [name for name, algorithms in list_presets().items() if algorithm in algorithms]


def _places(algorithm: str) -> str:
    """A sentence that lists presets of an algorithm."""
    names = _names(algorithm)
    if not names:
        return f"There are no presets for {algorithm}: no hyperparameters for single environments are published."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"It has presets in {', '.join(names[:SHOWN])}{more}; `flowpolicies list presets` shows all."
