"""Checkpoints on disk: several files that are complete together, with their checksums.

A checkpoint is `step_N.zip` and files beside it with the same stem: `step_N.json`, the manifest with size and SHA-256
of the others, and `step_N.buffer.pkl` with the online transitions. The zip appears last, by a rename, so a checkpoint
whose zip is there is complete, unless it was damaged later. Checkpoints of version 0.1.0 have no manifest.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.containers import check_zip
from flowpolicies.files import atomic_write, discard_leftovers, write_json
from flowpolicies.training.logs import LogState

VERSION = 1
"""Version of the manifests that are written."""

Part = Callable[[BinaryIO], object]
"""Writes one file of a checkpoint."""


class Manifest(NamedTuple):
    """Content of the JSON file of a checkpoint."""

    files: dict[str, dict[str, Any]]
    """Name -> "bytes" and "sha256" of each file of the checkpoint."""
    steps: dict[str, int]
    """Phase -> number of its steps."""
    log: LogState
    """Where the logs of the run are if it continues from here in the next phase, or within the phase."""
    open_log: LogState | None
    """The same for a phase that has ended and is continued for more steps, before its last, incomplete interval was
    logged; None within a phase."""


def list_checkpoints(folder: Path) -> list[Path]:
    """Zips of the complete checkpoints, the oldest first."""
    return sorted(folder.glob("step_*.zip"))


def manifest_path(checkpoint: Path) -> Path:
    """Path of the manifest of a checkpoint."""
    return checkpoint.with_suffix(".json")


def write_checkpoint(path: Path, save: Part, parts: Mapping[str, Part], manifest: Manifest) -> None:
    """Writes a checkpoint whose zip is `path`. If that fails, nothing of it is left.

    Args:
        path: path of the zip.
        save: function that writes the zip.
        parts: ending of each file beside the zip, such as ".buffer.pkl" -> function that writes it.
        manifest: the manifest; its `files` are filled in here.
    """
    manifest_path(path).unlink(missing_ok=True)  # A checkpoint of the same step counts without it until it is replaced.
    files = {}
    try:
        for ending, write in parts.items():
            with atomic_write(path.with_suffix(ending)) as file:
                write(file)
            files[path.with_suffix(ending).name] = _description(path.with_suffix(ending))
        with atomic_write(path) as file:
            save(file)
            file.flush()
            files[path.name] = _description(Path(file.name))
            write_manifest(path, manifest._replace(files=files))
    except BaseException:
        manifest_path(path).unlink(missing_ok=True)
        raise
    finally:
        sweep(path.parent)


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Writes the manifest of a checkpoint, atomically."""
    logs = {"log": manifest.log._asdict(), "open_log": manifest.open_log and manifest.open_log._asdict()}
    write_json(manifest_path(checkpoint), {"version": VERSION, **manifest._asdict(), **logs})


def read_manifest(checkpoint: Path) -> Manifest | None:
    """The manifest of a checkpoint; None if it has none, as those of version 0.1.0.

    Raises:
        ArtifactError: if it is damaged, or a newer version wrote it.
    """
    path = manifest_path(checkpoint)
    if not path.is_file():
        return None
    found = parse_json(path.read_bytes(), path)
    with reading(path, hint="The file is damaged."):
        if found["version"] > VERSION:
            raise ArtifactError(
                path,
                f"the manifest has version {found['version']}, this version of flowpolicies reads up to {VERSION}",
                hint="A newer version of flowpolicies wrote the run: update flowpolicies.",
            )
        files = {
            str(name): {"bytes": int(e["bytes"]), "sha256": str(e["sha256"])} for name, e in found["files"].items()
        }
        steps = {str(phase): int(number) for phase, number in found["steps"].items()}
        open_log = None if found["open_log"] is None else _log_state(found["open_log"])
        return Manifest(files, steps, _log_state(found["log"]), open_log)


def _log_state(found: Mapping[str, Any]) -> LogState:
    state = LogState(**found)
    means = {str(key): (float(total), int(number), str(dtype)) for key, (total, number, dtype) in state.means.items()}
    return state._replace(progress=int(state.progress), evaluations=int(state.evaluations), means=means)


def problem_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint; "" if it is whole.

    Raises:
        ArtifactError: if a newer version wrote it.
    """
    try:
        manifest = read_manifest(checkpoint)
    except ArtifactError as error:
        if "newer version" in error.hint:
            raise
        return f"{manifest_path(checkpoint).name} is damaged"
    if manifest is None:
        return _problem_of_zip(checkpoint)
    for name, expected in manifest.files.items():
        file = checkpoint.with_name(Path(name).name)
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size:,} bytes instead of {expected['bytes']:,}"
        if _description(file) != expected:
            return f"the content of {name} has changed since it was written"
    return ""


def _problem_of_zip(path: Path) -> str:
    """What is wrong with a zip by its own checksums; "" if nothing is."""
    try:
        check_zip(path.read_bytes(), path.name)  # Bounds what its checksums unpack.
        with zipfile.ZipFile(path) as archive:
            archive.getinfo("data")  # A truncated file may still end with a complete zip, which has no "data".
            broken = archive.testzip()
    except Exception as error:  # Damaged bytes fail in many ways.
        return f"{path.name} is damaged ({error})"
    return "" if broken is None else f"{path.name} is damaged (in {broken})"


def set_aside(checkpoint: Path) -> None:
    """Renames the files of a damaged checkpoint to NAME.damaged, in place of earlier files of these names."""
    for file in [checkpoint, *_beside(checkpoint)]:
        if file.is_file():
            file.replace(file.with_name(f"{file.name}.damaged"))


def remove(checkpoint: Path) -> None:
    """Deletes a checkpoint, the zip first, so that a kill leaves no incomplete one."""
    for file in [checkpoint, *_beside(checkpoint)]:
        file.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Deletes what killed processes have left: temporary files, and files of checkpoints whose zip is missing."""
    discard_leftovers(folder)
    for file in folder.glob("step_*"):
        if file.suffix != ".damaged" and not (folder / f"{file.name.partition('.')[0]}.zip").exists():
            file.unlink()


def _beside(checkpoint: Path) -> list[Path]:
    found = checkpoint.parent.glob(f"{checkpoint.stem}.*")
    return [file for file in found if file != checkpoint and file.suffix != ".damaged"]


def _description(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
