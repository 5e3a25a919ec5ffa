"""Folders of Minari datasets: their paths, downloads, and checks that the files are complete and unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import minari
from filelock import FileLock
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage import get_dataset_path

from flowpolicies.artifacts import ArtifactError, parse_json
from flowpolicies.data.reading.limits import MAX_TEXT
from flowpolicies.files import write_json
from flowpolicies.messages import did_you_mean

METADATA = "metadata.json"
"""Name of the file with Minari's metadata, in the folder of the data files."""

RECORD = "flowpolicies.json"
"""Name of the file with the hashes of a dataset's files, which is written when the whole dataset was read once."""

OFFLINE_VARIABLE = "FLOWPOLICIES_OFFLINE"
"""Environment variable that turns off downloads; flowpolicies' own downloader obeys it too."""

_NEEDED = (
    "dataset_id",
    "total_episodes",
    "total_steps",
    "data_format",
    "minari_version",
    # Without the spaces Minari would make the environment, and so call code that the metadata name (`read` in
    # minari/dataset/minari_storage.py).
    "observation_space",
    "action_space",
)
"""Keys without which the metadata do not describe a dataset."""

_TYPES: dict[str, type] = {
    "dataset_id": str,
    "total_episodes": int,
    "total_steps": int,
    "data_format": str,
    "minari_version": str,
    "observation_space": str,
    "action_space": str,
    "env_spec": str,
    "eval_env_spec": str,
    "requirements": list,
    "flowpolicies": dict,
}
"""Types of the metadata that are used."""


@final
@dataclass(frozen=True)
class Folder:
    """Folder of a dataset in Minari's layout, which need not exist yet."""

    root: Path
    """Folder of all datasets."""
    id: str
    """Minari's id of the dataset, such as "D4RL/pen/human-v2"."""
    remote: str | None = None
    """Server to download from, such as "hf://farama-minari"; None: Minari's default."""

    @property
    def path(self) -> Path:
        """Folder of this dataset."""
        return self.root / self.id

    @property
    def data(self) -> Path:
        """Folder of the data files, which Minari reads."""
        return self.path / "data"

    @property
    def record(self) -> Path:
        """Path of the file with the hashes of the data files."""
        return self.path / RECORD

    @property
    def metadata_path(self) -> Path:
        """Path of Minari's metadata."""
        return self.data / METADATA

    def metadata(self) -> dict[str, Any]:
        """Minari's metadata of the dataset, as stored in metadata.json.

        Raises:
            ArtifactError: if the file is not JSON, lacks a key, or has a value of another type than Minari writes.
        """
        path = self.metadata_path
        if (size := path.stat().st_size) > MAX_TEXT:
            raise ArtifactError(path, f"it has {size:,} bytes; at most {MAX_TEXT:,} are read", hint=self.advice())
        try:
            metadata = parse_json(path.read_bytes(), path)
        except ArtifactError as error:
            raise ArtifactError(path, f"it is damaged ({error.problem})", hint=self.advice()) from error
        given = metadata if isinstance(metadata, dict) else {}
        if missing := [key for key in _NEEDED if given.get(key) is None]:
            problem = f"it lacks {missing}, so it does not describe a Minari dataset"
            raise ArtifactError(path, problem, hint=self.advice())
        for key, kind in _TYPES.items():
            if given.get(key) is not None and not isinstance(given[key], kind):
                raise ArtifactError(path, f"it is not of the type {kind.__name__}", place=key, hint=self.advice())
        return given

    def fault(self) -> str | None:
        """Why the folder is not a complete dataset, from the existence of its files; None if it is complete."""
        if not self.data.is_dir():
            return f"the folder '{self.data}' does not exist"
        if not self.metadata_path.is_file():
            return f"'{self.data}' has no metadata.json"
        if self.metadata()["data_format"] == "hdf5" and not (self.data / "main_data.hdf5").is_file():
            return f"'{self.data}' has no main_data.hdf5"
        return None

    def advice(self) -> str:
        """A sentence for error messages about what to do with an incomplete or damaged folder."""
        return f"Delete the folder '{self.path}', and download the dataset again: minari download {self.id}"

    def files(self) -> dict[str, Path]:
        """Paths of all files of the data and of the metadata, by their path relative to `data`.

        Raises:
            ArtifactError: if one of them is a link that leads out of the folder.
        """
        files = sorted(path for path in self.data.rglob("*") if path.is_file() and path.name[0] != ".")
        root = self.data.resolve()
        for path in files:
            if not path.resolve().is_relative_to(root):
                raise ArtifactError(path, f"it is a link to '{path.resolve()}', which is not in the dataset's folder")
        return {path.relative_to(self.data).as_posix(): path for path in files}

    def size(self) -> int:
        """Bytes of all files of the data."""
        return sum(path.stat().st_size for path in self.files().values())

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the data and of the metadata."""
        return {name: _sha256(path) for name, path in self.files().items()}

    def status(self) -> dict[str, list[int]]:
        """Size in bytes and time of modification in ns of each data file."""
        found = {name: path.stat() for name, path in self.files().items()}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}

    def check_record(self, hashes: Mapping[str, str]) -> bool:
        """Whether hashes of the files, and of the metadata, have been recorded.

        Records of older versions have no hash of the metadata.

        Args:
            hashes: SHA-256 of each file now.

        Raises:
            ArtifactError: if they differ from the recorded hashes, or the record is damaged.
        """
        if not self.record.is_file():
            return False
        known = self._recorded()
        now = {name: hash for name, hash in hashes.items() if not _is_metadata(name) or name in known}
        self._refuse_changes(sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name)))
        return known == hashes

    def check_metadata(self) -> None:
        """Check that the metadata are those that were recorded, if they were.

        Raises:
            ArtifactError: if they are not, or the record is damaged.
        """
        known = self._recorded().get(METADATA) if self.record.is_file() else None
        if known is not None and known != _sha256(self.metadata_path):
            self._refuse_changes([METADATA])

    def _recorded(self) -> dict[str, str]:
        record = parse_json(self.record.read_bytes(), self.record)
        known = record.get("sha256") if isinstance(record, dict) else None
        if not isinstance(known, dict):
            raise ArtifactError(
                self.record,
                "it is not a record of hashes",
                hint=f"Delete it to accept the files of '{self.id}' as they are now.",
            )
        return known

    def _refuse_changes(self, changed: list[str]) -> None:
        if changed:
            raise ArtifactError(
                self.data,
                f"the files of Minari dataset '{self.id}' are not those that were first read here: {changed} in "
                f"'{self.data}' changed. The files are damaged, or a program changed the dataset. {self.advice()}",
                hint=f"If the change was intended, delete '{self.record}'.",
            )

    def write_record(self, hashes: Mapping[str, str]) -> None:
        """Record the hashes of the files, unless the folder cannot be written to."""
        with contextlib.suppress(PermissionError):
            write_json(self.record, {"format": 1, "sha256": dict(hashes)})


def folder_of(name: str, data_dir: str | os.PathLike[str] | None = None) -> Folder:
    """The folder of a dataset, whether it exists or not.

    Args:
        name: Minari's id, or the id after a server to download from: "hf://farama-minari/D4RL/pen/human-v2".
        data_dir: Folder of all datasets; None: Minari's (MINARI_DATASETS_PATH, or ~/.minari/datasets).

    Raises:
        ValueError: if the name has another form.
    """
    remote = None
    dataset_id = name
    if "://" in name:
        scheme, _, rest = name.partition("://")
        host, _, dataset_id = rest.partition("/")
        remote = f"{scheme}://{host}"
    root = Path(data_dir).expanduser() if data_dir is not None else get_dataset_path()
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        # Minari raises a TypeError for an id without a version (minari/dataset/minari_dataset.py).
        raise ValueError(
            f"'{name}' is not a Minari dataset id. Ids look like 'D4RL/pen/human-v2', with the version at the end."
            f"{_hint(dataset_id, root)}"
        ) from error
    return Folder(root, dataset_id, remote)


def fetch_folder(name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool) -> Folder:
    """The complete folder of a dataset, downloaded by Minari if it is missing or lacks files.

    Raises:
        ValueError: if the dataset does not exist, or its folder is incomplete and downloads are turned off.
        FileNotFoundError: if the folder is missing and downloads are turned off.
        ImportError: if a package that Minari needs for the download is not installed.
        ConnectionError: if the dataset cannot be downloaded.
    """
    folder = folder_of(name, data_dir)
    fault = folder.fault()
    if fault is None:
        return folder
    if not download or os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0"):
        _refuse(folder, fault)
    folder.root.mkdir(parents=True, exist_ok=True)
    # Several processes may start together, for example one for each seed, and only one of them shall download.
    with FileLock(folder.root / f".{folder.id.replace('/', '-')}.lock"):
        if (fault := folder.fault()) is not None:
            _download(folder, fault)
    if (fault := folder.fault()) is not None:
        raise ArtifactError(
            folder.path, f"Minari's download of '{folder.id}' left an incomplete dataset: {fault}", hint=folder.advice()
        )
    return folder


@contextlib.contextmanager
def datasets_path(root: Path) -> Iterator[None]:
    """Let Minari use `root` as the folder of its datasets in this block."""
    # Minari takes the folder only from this environment variable (minari/storage/datasets_root_dir.py).
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _refuse(folder: Folder, fault: str) -> None:
    if not folder.path.exists():
        raise FileNotFoundError(
            f"Minari dataset '{folder.id}' is not on this machine ({fault}), and downloads are turned off "
            f"({OFFLINE_VARIABLE} or download=False). Get it with: minari download {folder.id}"
            f"{_hint(folder.id, folder.root)}"
        )
    raise ArtifactError(folder.path, f"Minari dataset '{folder.id}' is incomplete: {fault}", hint=folder.advice())


def _download(folder: Folder, fault: str) -> None:
    """Download a missing or incomplete dataset with Minari's own downloader."""
    state = "incomplete on this machine" if folder.path.exists() else "not on this machine"
    start = f"Minari dataset '{folder.id}' is {state} ({fault}), and cannot be downloaded"
    by_hand = f"Run `minari download {folder.id}` on a machine with a network, and copy the folder to '{folder.path}'."
    full = folder.id if folder.remote is None else f"{folder.remote}/{folder.id}"
    try:
        # Minari prints messages, and standard output is for the output of the calling command.
        with datasets_path(folder.root), contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(full, force_download=folder.path.exists())
    except ImportError as error:
        raise ImportError(
            f'{start}: {error}. Install what is missing: pip install "flowpolicies[minari]". Or: {by_hand}'
        ) from error
    except ValueError as error:
        raise ValueError(f"{start}: {error}{_hint(folder.id, folder.root)}") from error
    except Exception as error:
        # The class of the error that Hugging Face's client raises without a network depends on its version.
        raise ConnectionError(f"{start}: {error!r}. {by_hand}") from error
    warnings.warn(
        f"Minari dataset '{folder.id}' was downloaded, and no hashes of it are published, so its content is trusted "
        f"this once: the SHA-256 of its files are recorded in '{folder.record}' when it is loaded, and files that "
        "differ from them are refused afterwards.",
        stacklevel=4,
    )


def _hint(dataset_id: str, root: Path) -> str:
    """Suggestion of a similar id among the datasets on this machine."""
    known = [path.parent.parent.relative_to(root).as_posix() for path in root.glob("**/data/metadata.json")]
    return did_you_mean(dataset_id, known)


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] == METADATA


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
