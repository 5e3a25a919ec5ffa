"""Environment specifications in metadata, which may come from another version of Gymnasium."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator
from packaging.requirements import InvalidRequirement, Requirement

_LEGACY_MUJOCO = re.compile(
    r"(Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher|Swimmer"
    r"|Walker2d)-v[23]"
)
"""Ids of MuJoCo environments that Gymnasium no longer has."""

_FIELDS = {field.name for field in dataclasses.fields(EnvSpec) if field.init}
"""Names of the arguments of Gymnasium's `EnvSpec`."""


def read_spec(text: str, name: str, requirements: Sequence[str] = ()) -> EnvSpec:
    """Rebuild the environment specification of a dataset.

    Fields that the installed version of Gymnasium does not know are dropped. Wrappers that cannot be rebuilt are left
    out with a warning. Versions 2 and 3 of MuJoCo environments become version 5, with a warning.

    Metadata come from other people, so nothing that they name is called, except registered environments and subclasses
    of Gymnasium's `Env` and `Wrapper`.

    Args:
        text: The specification as JSON.
        name: Name of the dataset, for messages.
        requirements: The packages that the dataset asks for, as pip requirements.

    Raises:
        ValueError: if the text is not a specification.
        ImportError: if the environment is not installed.
    """
    try:
        data = json.loads(text)
        wrappers = [_wrapper(item) for item in data.get("additional_wrappers") or ()]
        known = {key: value for key, value in data.items() if key in _FIELDS}
        spec = EnvSpec(**{**known, "additional_wrappers": (), "vector_entry_point": None})
    except (TypeError, ValueError, AttributeError, KeyError, gymnasium.error.Error) as error:
        raise ValueError(f"the environment specification of dataset '{name}' cannot be read: {error!r}.") from error
    spec = _newer_mujoco(spec, name) if _LEGACY_MUJOCO.fullmatch(spec.id) else _installed(spec, name, requirements)
    for unmet in unmet_requirements(requirements):
        warnings.warn(f"dataset '{name}': {unmet}", stacklevel=3)
    lost = [wrapper.name for wrapper, kept in zip(wrappers, map(_rebuilt, wrappers), strict=True) if kept is None]
    if lost:
        warnings.warn(
            f"dataset '{name}': these wrappers of its environment cannot be rebuilt and are left out: "
            f"{', '.join(lost)}. Observations and rewards may differ from those of the data.",
            stacklevel=3,
        )
    kept = tuple(wrapper for wrapper in map(_rebuilt, wrappers) if wrapper is not None)
    return dataclasses.replace(spec, additional_wrappers=kept)


def unmet_requirements(requirements: Sequence[str]) -> Iterator[str]:
    """A sentence for each requirement that this installation does not meet."""
    for text in requirements:
        try:
            requirement = Requirement(text)
            found = importlib.metadata.version(requirement.name)
        except InvalidRequirement:
            continue
        except importlib.metadata.PackageNotFoundError:
            yield f'it requires {text}, which is not installed: pip install "{text}"'
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield f'it requires {text}, but version {found} is installed: pip install "{text}"'


def _wrapper(item: Mapping[str, Any]) -> WrapperSpec:
    return WrapperSpec(name=item["name"], entry_point=item["entry_point"], kwargs=item.get("kwargs"))


def _newer_mujoco(spec: EnvSpec, name: str) -> EnvSpec:
    newer = gymnasium.spec(f"{spec.name}-v5")
    warnings.warn(
        f"dataset '{name}' was collected in {spec.id}, which no longer exists; {newer.id} is used instead. Its "
        "dynamics and rewards differ, so scores are not comparable with those published for the old version.",
        stacklevel=4,
    )
    steps = newer.max_episode_steps if spec.max_episode_steps is None else spec.max_episode_steps
    return dataclasses.replace(newer, kwargs={**newer.kwargs, **spec.kwargs}, max_episode_steps=steps)


def _installed(spec: EnvSpec, name: str, requirements: Sequence[str]) -> EnvSpec:
    """The specification with an entry point that can be called."""
    advice = f"Install what the dataset was collected with: pip install {' '.join(requirements) or 'PACKAGE'}"
    module = str(spec.entry_point).partition(":")[0].partition(".")[0]
    try:
        # Packages register their environments when they are imported.
        importlib.import_module(module)
    except ImportError as error:
        if spec.id not in gymnasium.registry:
            raise ImportError(
                f"environment '{spec.id}' of dataset '{name}' is not installed ({error}). {advice}"
            ) from error
    if (registered := gymnasium.registry.get(spec.id)) is not None:
        return dataclasses.replace(spec, entry_point=registered.entry_point)
    try:
        creator = load_env_creator(str(spec.entry_point))
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(
            f"environment '{spec.id}' of dataset '{name}' is not registered, and {spec.entry_point} cannot be imported "
            f"({error}). {advice}"
        ) from error
    if not (isinstance(creator, type) and issubclass(creator, gymnasium.Env)):
        raise ValueError(
            f"environment '{spec.id}' of dataset '{name}' is not registered, and its entry point {spec.entry_point} is "
            "not a subclass of gymnasium.Env, so it is not called. First import the package that registers it."
        )
    return spec


def _rebuilt(wrapper: WrapperSpec) -> WrapperSpec | None:
    """The wrapper with an entry point that can be imported; None if there is none or its arguments are unknown."""
    if wrapper.kwargs is None:
        return None
    # Gymnasium's own wrappers moved between its versions, but all of them can be imported from `gymnasium.wrappers`.
    for place in (wrapper.entry_point, f"gymnasium.wrappers:{wrapper.entry_point.rpartition(':')[2]}"):
        try:
            creator = load_env_creator(place)
        except (ImportError, AttributeError, ValueError):
            continue
        if isinstance(creator, type) and issubclass(creator, gymnasium.Wrapper):
            return WrapperSpec(wrapper.name, place, wrapper.kwargs)
    return None
