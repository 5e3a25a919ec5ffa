"""Environment specifications of other versions of Gymnasium, as far as they can be rebuilt here."""

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
_FIELDS = {field.name for field in dataclasses.fields(EnvSpec) if field.init}


def read_spec(text: str, name: str, requirements: Sequence[str] = ()) -> EnvSpec:
    """The specification in a dataset's metadata.

    What this version of Gymnasium does not know is dropped; so are wrappers that cannot be rebuilt, with a warning.
    MuJoCo's environments of versions 2 and 3 become version 5, with a warning. Metadata are somebody else's text: only
    registered environments, and subclasses of Gymnasium's `Env` and `Wrapper`, are ever called.

    Args:
        text: JSON.
        name: of the dataset, for messages.
        requirements: what the dataset says it needs, as pip writes it.

    Raises:
        ValueError: if it is no specification.
        ImportError: if the environment is not installed.
    """
    try:
        data = json.loads(text)
        wrappers = [_wrapper(item) for item in data.get("additional_wrappers") or ()]
        known = {key: value for key, value in data.items() if key in _FIELDS}
        spec = EnvSpec(**{**known, "additional_wrappers": (), "vector_entry_point": None})
    except (TypeError, ValueError, AttributeError, KeyError, gymnasium.error.Error) as error:
        raise ValueError(f"dataset '{name}' holds no environment specification that can be read: {error!r}.") from error
    spec = _newer_mujoco(spec, name) if _LEGACY_MUJOCO.fullmatch(spec.id) else _installed(spec, name, requirements)
    for unmet in unmet_requirements(requirements):
        warnings.warn(f"dataset '{name}': {unmet}", stacklevel=3)
    lost = [wrapper.name for wrapper, kept in zip(wrappers, map(_rebuilt, wrappers), strict=True) if kept is None]
    if lost:
        warnings.warn(
            f"dataset '{name}': wrappers of its environment cannot be rebuilt and are left out: {', '.join(lost)}. "
            "Observations and rewards may differ from the data's.",
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
            yield f'it asks for {text}, which is not installed: pip install "{text}"'
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield f'it asks for {text}, installed is {found}: pip install "{text}"'


def _wrapper(item: Mapping[str, Any]) -> WrapperSpec:
    return WrapperSpec(name=item["name"], entry_point=item["entry_point"], kwargs=item.get("kwargs"))


def _newer_mujoco(spec: EnvSpec, name: str) -> EnvSpec:
    newer = gymnasium.spec(f"{spec.name}-v5")
    warnings.warn(
        f"dataset '{name}' was collected in {spec.id}, which no longer exists; {newer.id} takes its place. Its "
        "dynamics and rewards differ, so scores are not comparable with those published for the old one.",
        stacklevel=4,
    )
    steps = newer.max_episode_steps if spec.max_episode_steps is None else spec.max_episode_steps
    return dataclasses.replace(newer, kwargs={**newer.kwargs, **spec.kwargs}, max_episode_steps=steps)


def _installed(spec: EnvSpec, name: str, requirements: Sequence[str]) -> EnvSpec:
    """The specification with an entry point that can be called."""
    advice = f"Install what the dataset was collected with: pip install {' '.join(requirements) or 'PACKAGE'}"
    module = str(spec.entry_point).partition(":")[0].partition(".")[0]
    try:
        importlib.import_module(module)  # Packages register their environments when they are imported.
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
            f"environment '{spec.id}' of dataset '{name}' is neither registered nor at {spec.entry_point} ({error}). "
            f"{advice}"
        ) from error
    if not (isinstance(creator, type) and issubclass(creator, gymnasium.Env)):
        raise ValueError(
            f"dataset '{name}' wants {spec.entry_point} called for its environment '{spec.id}', which is neither "
            "registered nor a subclass of gymnasium.Env, so it is not. Import the package that registers it first."
        )
    return spec


def _rebuilt(wrapper: WrapperSpec) -> WrapperSpec | None:
    """The wrapper at a place where it can be imported; None if there is none, or its arguments are not known."""
    if wrapper.kwargs is None:
        return None
    for place in (wrapper.entry_point, f"gymnasium.wrappers:{wrapper.entry_point.rpartition(':')[2]}"):
        try:
            creator = load_env_creator(place)
        except (ImportError, AttributeError, ValueError):
            continue
        if isinstance(creator, type) and issubclass(creator, gymnasium.Wrapper):
            return WrapperSpec(wrapper.name, place, wrapper.kwargs)
    return None
