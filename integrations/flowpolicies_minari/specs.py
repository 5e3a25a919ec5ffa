"""Environment specifications in metadata, which may come from another version of Gymnasium."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator
from packaging.requirements import InvalidRequirement, Requirement

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies_minari.allowed import environment_fault, register_known_package, wrapper_fault

_LEGACY_MUJOCO = re.compile(
    r"(Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher|Swimmer"
    r"|Walker2d)-v[23]"
)
"""Ids of MuJoCo environments that Gymnasium no longer has."""

_FIELDS = {field.name for field in dataclasses.fields(EnvSpec) if field.init}
"""Names of the arguments of Gymnasium's `EnvSpec`."""


def read_spec(
    text: str,
    name: str,
    requirements: Sequence[str] = (),
    *,
    trust: bool = False,
    path: str | os.PathLike[str] = "metadata.json",
) -> EnvSpec:
    """Rebuild the environment specification of a dataset.

    Fields that the installed version of Gymnasium does not know are dropped. Wrappers that cannot be rebuilt are left
    out with a warning. Versions 2 and 3 of MuJoCo environments become version 5, with a warning.

    Metadata come from other people, so nothing that they name is imported or called. Without trust, the environment
    must be registered in Gymnasium, where its entry points are taken from, or belong to one of
    `flowpolicies_minari.allowed.PACKAGES`; wrappers must be among `flowpolicies_minari.allowed.WRAPPERS`; and arguments
    must not be paths or addresses. With trust, modules that the metadata name are imported, and environments and
    wrappers may be any subclasses of Gymnasium's `Env` and `Wrapper`.

    Args:
        text: The specification as JSON.
        name: Name of the dataset, for messages.
        requirements: The packages that the dataset asks for, as pip requirements.
        trust: Import what the specification names.
        path: Path of the metadata, for messages.

    Raises:
        ArtifactError: if the text is not a specification, or names something that needs trust.
        ImportError: if the environment is not installed.
    """
    with reading(path, f"env_spec: the environment specification of dataset '{name}' cannot be read"):
        data = parse_json(text, path, f"env_spec: the environment specification of dataset '{name}' cannot be read")
        wrappers = [_wrapper(item) for item in data.get("additional_wrappers") or ()]
        known = {key: value for key, value in data.items() if key in _FIELDS}
        spec = EnvSpec(**{**known, "additional_wrappers": (), "vector_entry_point": None})
        if not isinstance(spec.kwargs, dict) or isinstance(spec.max_episode_steps, str | float | list | dict):
            raise TypeError("kwargs are no object, or max_episode_steps is no whole number")
    is_old = _LEGACY_MUJOCO.fullmatch(spec.id) is not None
    if not trust:
        _check_untrusted(spec, wrappers, name, path, is_old=is_old)
    spec = _newer_mujoco(spec, name) if is_old else _installed(spec, name, requirements, path, trust=trust)
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


def needs_trust(
    path: str | os.PathLike[str], name: str, what: str, fault: str, place: str = "env_spec"
) -> ArtifactError:
    """The error for something in metadata that is followed only with trust.

    Args:
        path: Path of the metadata.
        name: Name of the dataset.
        what: What the metadata name.
        fault: Why it is not followed, as the end of a sentence about it.
        place: Key of the metadata.
    """
    return ArtifactError(
        path,
        f"{what} of dataset '{name}' {fault}, so it is not followed: metadata can name any code",
        place=place,
        hint="If a package that you have registers it, import that package first. If you trust the author of the "
        f"dataset, pass trust=True (on the command line minari:{name},trust=true). Or pass an environment yourself "
        "(--env on the command line).",
    )


def _check_untrusted(
    spec: EnvSpec, wrappers: Sequence[WrapperSpec], name: str, path: str | os.PathLike[str], *, is_old: bool
) -> None:
    """Check that a specification names only what needs no trust."""
    if spec.id not in gymnasium.registry and not is_old:
        try:
            register_known_package(spec.entry_point)
        except ImportError as error:
            raise ImportError(f"environment '{spec.id}' of dataset '{name}' is not installed ({error}).") from error
    newest = f"{spec.name}-v5" if is_old else spec.id
    if (fault := environment_fault(newest, spec.kwargs)) is not None:
        raise needs_trust(path, name, f"environment '{spec.id}' ({spec.entry_point})", fault)
    for wrapper in wrappers:
        if (fault := wrapper_fault(wrapper)) is not None:
            raise needs_trust(path, name, f"wrapper '{wrapper.name}'", fault)


def unmet_requirements(requirements: Sequence[str]) -> Iterator[str]:
    """A sentence for each requirement that this installation does not meet."""
    for text in requirements:
        try:
            requirement = Requirement(text)
            found = importlib.metadata.version(requirement.name)
        except (InvalidRequirement, TypeError):
            continue
        except importlib.metadata.PackageNotFoundError:
            yield f'it requires {text}, which is not installed: pip install "{text}"'
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield f'it requires {text}, but version {found} is installed: pip install "{text}"'


def _wrapper(item: Mapping[str, Any]) -> WrapperSpec:
    spec = WrapperSpec(name=str(item["name"]), entry_point=str(item["entry_point"]), kwargs=item.get("kwargs"))
    if not isinstance(spec.kwargs, dict | None):
        raise TypeError(f"the arguments of wrapper {spec.name!r} are no object")
    return spec


def _newer_mujoco(spec: EnvSpec, name: str) -> EnvSpec:
    newer = gymnasium.spec(f"{spec.name}-v5")
    warnings.warn(
        f"dataset '{name}' was collected in {spec.id}, which no longer exists; {newer.id} is used instead. Its "
        "dynamics and rewards differ, so scores are not comparable with those published for the old version.",
        stacklevel=4,
    )
    steps = newer.max_episode_steps if spec.max_episode_steps is None else spec.max_episode_steps
    return dataclasses.replace(newer, kwargs={**newer.kwargs, **spec.kwargs}, max_episode_steps=steps)


def _installed(
    spec: EnvSpec, name: str, requirements: Sequence[str], path: str | os.PathLike[str], *, trust: bool
) -> EnvSpec:
    """The specification with the entry points of the registration; with trust, those of the specification itself."""
    if not trust:
        return _as_registered(spec)
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
    if spec.id in gymnasium.registry:
        return _as_registered(spec)
    try:
        creator = load_env_creator(str(spec.entry_point))
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(
            f"environment '{spec.id}' of dataset '{name}' is not registered, and {spec.entry_point} cannot be imported "
            f"({error}). {advice}"
        ) from error
    if not (isinstance(creator, type) and issubclass(creator, gymnasium.Env)):
        raise ArtifactError(
            path,
            f"environment '{spec.id}' of dataset '{name}' is not registered, and its entry point {spec.entry_point} is "
            "not a subclass of gymnasium.Env, so it is not called",
            place="env_spec",
            hint="First import the package that registers it.",
        )
    return spec


def _as_registered(spec: EnvSpec) -> EnvSpec:
    """A registered specification with the arguments, the time limit and the checks of a dataset's."""
    return dataclasses.replace(
        gymnasium.registry[spec.id],
        kwargs=spec.kwargs,
        max_episode_steps=spec.max_episode_steps,
        order_enforce=bool(spec.order_enforce),
        disable_env_checker=bool(spec.disable_env_checker),
        additional_wrappers=(),
    )


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
