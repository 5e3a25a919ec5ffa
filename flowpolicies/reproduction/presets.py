"""Published settings by name, such as "ogbench/antmaze-large-navigate-task3"; docs/presets.md describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from flowpolicies.algorithms import get_algorithm
from flowpolicies.messages import did_you_mean
from flowpolicies.reproduction.preset_files import (
    SUITES,
    Environment,
    Preset,
    all_environments,
    plain_name,
    read_suite,
    split_task,
)

AUTO = "auto"
"""Name of the preset that is chosen by the dataset or the environment."""
SHOWN = 8
"""How many names a message lists."""


def load_preset(algorithm: str, name: str, addresses: Sequence[str] = ()) -> Preset:
    """The preset of an algorithm by its name.

    Args:
        algorithm: its name.
        name: "SUITE/ENVIRONMENT"; a suffix "-task3" or a whole dataset name
            ("ogbench/antmaze-large-navigate-singletask-task3-v0") chooses a task, else it is the default one.
        addresses: datasets or environments that choose the task, if the name does not.

    Raises:
        ValueError: for an unknown name, or if the algorithm has no preset of this name, with some that it has.
    """
    algorithm = get_algorithm(algorithm).name
    suite, _, rest = name.partition("/")
    if suite not in SUITES or not rest:
        raise ValueError(
            f"unknown preset '{name}': names are SUITE/ENVIRONMENT, and the suites {', '.join(SUITES)}.{_similar(name)}"
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
                    f"{algorithm} has no preset '{name}': the published runs there are plain {other}, with the "
                    f"number that makes the difference at 0. Train {other} with this preset."
                )
        raise ValueError(f"{algorithm} has no preset '{name}'. {_places(algorithm)}")
    if len(fitting) > 1:
        options = ", ".join(f"{suite}/{environment.name}" for environment in fitting)
        raise ValueError(f"preset '{name}' could be {options}. Name one of them.")
    if task is None:
        named = [split_task(address)[1] for address in addresses if fitting[0].is_meant_by(address)]
        task = next((one for one in named if one is not None), None)
    return fitting[0].preset(algorithm, task)


def find_preset(algorithm: str, addresses: Sequence[str]) -> Preset:
    """The preset for datasets or environments by their addresses: of the first suite that has their task.

    Raises:
        ValueError: if there is none, or no address.
    """
    algorithm = get_algorithm(algorithm).name
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
    """Raises a ValueError if an address names another environment, or another task, than the preset is for.

    Addresses of other sources, such as files, say nothing about their environment.
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
    """Every preset without its task, and the algorithms that it has."""
    return {f"{one.suite}/{one.name}": tuple(one.algorithms()) for one in all_environments()}


def iterate_presets() -> Iterator[Preset]:
    """Every preset of every algorithm and task."""
    for environment in all_environments():
        for algorithm in environment.algorithms():
            for task in environment.tasks_of(algorithm):
                yield environment.preset(algorithm, task)


def has_preset(algorithm: str, name: str) -> bool:
    """Whether an algorithm has a preset of this full name, such as "ogbench/antmaze-large-navigate-task3"."""
    environment, task = _environment(name)
    return algorithm in environment.algorithms() and task in environment.tasks_of(algorithm)


def stand_in(algorithm: str, name: str) -> str:
    """The algorithm that a published run is: that of the table, unless its hyperparameters make it another one."""
    environment, _ = _environment(name)
    return environment.same_as(algorithm) or algorithm


def settings_of_environment(algorithm: str, name: str) -> Preset:
    """What a suite gives for an environment whatever the algorithm, for one that has no preset there."""
    environment, task = _environment(name)
    return environment.preset(algorithm, task, only_common=True)


def tasks_of(name: str) -> tuple[int, ...]:
    """The tasks of "SUITE/ENVIRONMENT"; none where there are no tasks, or the name has one."""
    environment, task = _environment(name)
    return () if task is not None else tuple(environment.table.get("tasks", ()))


def _environment(name: str) -> tuple[Environment, int | None]:
    """Of a name that is known to be right."""
    suite, _, rest = name.partition("/")
    key, task = split_task(rest)
    return next(one for one in read_suite(suite) if one.name == key), task


def _scene(key: str) -> str:
    """Without the kind of data, which does not change the environment."""
    return re.sub(r"-(navigate|stitch|explore|play|noisy)$", "", plain_name(key))


def _benchmarks() -> set[str]:
    return {environment.table["dataset"].partition(":")[0] for environment in all_environments()}


def _similar(name: str) -> str:
    known = list(list_presets())
    hint = did_you_mean(split_task(name)[0], known)
    if not hint:
        key = plain_name(split_task(name.rpartition("/")[2])[0])
        same = [other for other in known if other.partition("/")[2] == key]
        hint = f" Did you mean {same[0]!r}?" if same else ""
    return hint


def _names(algorithm: str) -> list[str]:
    """The presets of an algorithm."""
    return [name for name, algorithms in list_presets().items() if algorithm in algorithms]


def _places(algorithm: str) -> str:
    """Where an algorithm has presets."""
    names = _names(algorithm)
    if not names:
        return f"There are no presets for {algorithm}: no per-environment hyperparameters are published."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"It has presets in {', '.join(names[:SHOWN])}{more}; `flowpolicies list presets` shows all."
