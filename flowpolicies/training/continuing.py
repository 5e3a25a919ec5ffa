"""Continuing a run: whether its settings agree with those it began with, and what its record says afterwards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.artifacts import ArtifactError
from flowpolicies.choices import choice_of_backend
from flowpolicies.shell.config import current_names
from flowpolicies.shell.fields import added_fields
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.runs import RunFolder, notice
from flowpolicies.training.settings import TrainSettings

T = TypeVar("T")

MUST_AGREE = ("reward_transform", "frame_stack", "p_aug", "rotate_every", "validation", "precision")
"""Fields of `TrainSettings` that decide what is trained, besides dataset, environment and seed."""


def read_record(algorithm: type[OfflineAlgorithm], folder: RunFolder) -> dict[str, Any]:
    """The record of a run that is to be continued, with present names of hyperparameters.

    Raises:
        ArtifactError: if it is damaged, lacks a part, or has fields that a newer version of flowpolicies wrote.
    """
    hint = "Restore the file from a backup, or start the run again with --overwrite."
    try:
        record = folder.read_config()
    except ArtifactError as error:
        raise ArtifactError(folder.config, error.problem, place=error.place, hint=hint) from error
    for name in ("algorithm", "hyperparameters", "sb3_hyperparameters", "dataset", "settings", "commands"):
        if name not in record:
            raise ArtifactError(folder.config, f"it has no {name!r}", hint=hint)
    record["hyperparameters"] = current_names(algorithm.Config, record["hyperparameters"])
    record["settings"] = _current_settings(record["settings"])
    if record["algorithm"] == algorithm.name:
        for section, config in sections(algorithm).items():
            known = {field.name for field in dataclasses.fields(config)}
            if unknown := sorted(record[section].keys() - known):
                version = record.get("software", {}).get("flowpolicies", "a newer version")
                raise ArtifactError(
                    folder.config,
                    f"this version of flowpolicies does not know {', '.join(map(repr, unknown))}",
                    place=section,
                    hint=f"A newer version of flowpolicies wrote the run ({version}): update flowpolicies.",
                )
    return record


def _current_settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `TrainSettings` in a record, by their present names."""
    found = dict(recorded)
    if "compile_backend" in found:
        found["compile"] = choice_of_backend(found.pop("compile_backend"))
    return found


def recorded_settings(record: Mapping[str, Any], **changes: Any) -> TrainSettings:
    """The settings that a run was trained with, from its record, without what belongs to the machine.

    Args:
        record: content of `config.json`.
        **changes: fields of `TrainSettings` to change, such as the device.
    """
    found = _current_settings(record["settings"]) | {"compile": False, "device": "auto"}
    found |= {key: Path(found[key]) for key in ("data_dir", "cache_dir", "run_dir") if found.get(key) is not None}
    known = {field.name for field in dataclasses.fields(TrainSettings)}
    return TrainSettings(**{key: value for key, value in (found | changes).items() if key in known})


def sections(algorithm: type[OfflineAlgorithm]) -> dict[str, type[Any]]:
    """Name of each part of the record that holds the fields of a class -> the class."""
    return {
        "hyperparameters": algorithm.Config,
        "sb3_hyperparameters": SB3Hyperparameters,
        "settings": TrainSettings,
    }


def with_old_behavior(given: T, recorded: Mapping[str, Any]) -> T:
    """Settings for continuing a run of an earlier version that lacked some of the fields.

    A field that has its default gets the value that acts as the earlier version did; a line says so if they differ.

    Args:
        given: instance of a config.
        recorded: its fields in the record of the run.
    """
    config: Any = given
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    old = {
        name: value
        for name, value in added_fields(type(given)).items()
        if name not in recorded and getattr(given, name) == defaults[name] != value
    }
    for name, value in old.items():
        notice(f"{name} is {value!r}, as the run began with a version of flowpolicies that did not have it.")
    changed: T = dataclasses.replace(config, **old)
    return changed


def check_agreement(
    algorithm: type[OfflineAlgorithm], folder: RunFolder, before: dict[str, Any], record: dict[str, Any]
) -> None:
    """Raises a ValueError if a setting differs that decides what is trained."""
    was, now = _identity(algorithm, before), _identity(algorithm, record)
    other = [f"{key}: {was.get(key)} in the run, {value} now" for key, value in now.items() if was.get(key) != value]
    if other:
        raise ValueError(
            f"'{folder.path}' cannot be continued with other settings than it was started with "
            f"({'; '.join(other)}). Pass the same settings, or start a new run with --run-dir."
        )


def _identity(algorithm: type[OfflineAlgorithm], record: dict[str, Any]) -> dict[str, Any]:
    """Settings that a continued run must share with its beginning, in the form in which JSON returns them."""
    whole = {key: record.get(key) for key in ("algorithm", "env", "seed")}
    classes = sections(algorithm)
    filled = {name: _defaults(config) | added_fields(config) | record[name] for name, config in classes.items()}
    parts = {
        **filled["hyperparameters"],
        **filled["sb3_hyperparameters"],
        "dataset fingerprint": record["dataset"].get("fingerprint"),
        **{name: filled["settings"][name] for name in MUST_AGREE},
    }
    identity: dict[str, Any] = json.loads(json.dumps(whole | parts, default=str))
    return identity


def _defaults(config: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(config)}


def check_steps(folder: RunFolder, before: dict[str, Any], settings: TrainSettings, model: OfflineAlgorithm) -> None:
    """Checks that the steps that are asked for can be reached from a checkpoint.

    Several environments may take a few steps more than asked, so a run may have done more than its own number.

    Raises:
        ValueError: if the run has done more, or would have to return to the offline phase.
    """
    if model.num_timesteps > 0 and model.offline_steps < settings.steps:
        raise ValueError(
            f"'{folder.path}' is in its online phase after {model.offline_steps} offline steps and cannot "
            f"return to the offline phase for --steps {settings.steps}. Pass --steps {model.offline_steps}, or start "
            "a new run with --run-dir."
        )
    asked = before["settings"]
    for flag, done, wanted, earlier in (
        ("--steps", model.offline_steps, settings.steps, asked.get("steps", 0)),
        ("--online-steps", model.num_timesteps, settings.online_steps, asked.get("online_steps", 0)),
    ):
        if done > wanted and (flag == "--steps" or earlier > wanted):
            raise ValueError(
                f"'{folder.path}' has done {done:,} {'offline' if flag == '--steps' else 'online'} steps, and {flag} "
                f"{wanted} asks for fewer. Pass {flag} {max(done, earlier)} or more to continue it, or start a new run "
                "with --run-dir."
            )


def continued_record(before: Mapping[str, Any], record: Mapping[str, Any], done: Mapping[str, int]) -> dict[str, Any]:
    """The record of a run that is continued: what it began with, and one entry more in `parts`.

    Args:
        before: record of the run so far.
        record: record of the command that continues it.
        done: steps of the phases at the checkpoint.
    """
    (part,) = record["parts"]
    earlier = before.get("parts") or _parts_without_record(before)
    earlier = [*earlier[:-1], {**earlier[-1], "to": dict(done)}] if earlier else []
    kept = {name: before[name] for name in ("software", "hardware") if name in before}
    return {
        **record,
        **kept,
        "preset": record.get("preset") or before.get("preset"),
        "commands": [*before["commands"], *record["commands"]],
        "parts": [*earlier, {**part, "from": dict(done)}],
    }


def _parts_without_record(before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a run of version 0.1.0, which kept the software and hardware of the last one only."""
    parts: list[dict[str, Any]] = [{"command": command} for command in before["commands"]]
    if parts:
        parts[-1] |= {name: before[name] for name in ("software", "hardware") if name in before}
    return parts
