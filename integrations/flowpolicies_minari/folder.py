"""Where Minari keeps a dataset on this machine, whether it is whole, and how it gets there."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import minari
from filelock import FileLock
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage import get_dataset_path

RECORD = "flowpolicies.json"
"""The file beside a dataset's data that holds their hashes, once all of it could be read."""

OFFLINE_VARIABLE = "FLOWPOLICIES_OFFLINE"
"""Environment variable that turns downloads off; flowpolicies' own downloader heeds it too."""

_NEEDED = (
    "dataset_id",
    "total_episodes",
    "total_steps",
    "data_format",
    "minari_version",
    "observation_space",  # Without its spaces Minari would make the environment, that is call what the metadata name.
    "action_space",
)


@final
@dataclass(frozen=True)
class Folder:
    """A dataset's folder in Minari's layout; there may be nothing yet."""

    root: Path
    """Folder of all datasets."""
    id: str
    """Such as "D4RL/pen/human-v2"."""
    remote: str | None = None
    """Where to download from, such as "hf://farama-minari"; None: Minari's own choice."""

    @property
    def path(self) -> Path:
        """The dataset's own folder."""
        return self.root / self.id

    @property
    def data(self) -> Path:
        """The folder that Minari reads."""
        return self.path / "data"

    @property
    def record(self) -> Path:
        """The file with the hashes."""
        return self.path / RECORD

    def metadata(self) -> dict[str, Any]:
        """Minari's description of the dataset, as it is in the file.

        Raises:
            ValueError: if it is no JSON, or lacks something.
        """
        path = self.data / "metadata.json"
        try:
            metadata: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged ({error}). {self.advice()}") from error
        if missing := [key for key in _NEEDED if key not in metadata]:
            raise ValueError(f"'{path}' lacks {missing}: it describes no Minari dataset. {self.advice()}")
        return metadata

    def fault(self) -> str | None:
        """What keeps this from being a dataset, judged by which files there are; None: nothing."""
        if not self.data.is_dir():
            return f"there is no folder '{self.data}'"
        if not (self.data / "metadata.json").is_file():
            return f"'{self.data}' has no metadata.json"
        if self.metadata()["data_format"] == "hdf5" and not (self.data / "main_data.hdf5").is_file():
            return f"'{self.data}' has no main_data.hdf5"
        return None

    def advice(self) -> str:
        """What to do about a folder that is not whole."""
        return f"Delete the folder '{self.path}', and download the dataset again: minari download {self.id}"

    def files(self) -> dict[str, Path]:
        """Every data file, by its path below `data`."""
        files = sorted(path for path in self.data.rglob("*") if path.is_file() and path.name != "metadata.json")
        return {path.relative_to(self.data).as_posix(): path for path in files if path.name[0] != "."}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every data file."""
        return {name: _sha256(path) for name, path in self.files().items()}

    def status(self) -> dict[str, list[int]]:
        """Size and time of modification of every data file."""
        found = {name: path.stat() for name, path in self.files().items()}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}

    def check_record(self, hashes: Mapping[str, str]) -> bool:
        """Whether there is a record.

        Raises:
            ValueError: if the files are not those of the record.
        """
        if not self.record.is_file():
            return False
        known = json.loads(self.record.read_text())["sha256"]
        changed = sorted(name for name in known.keys() | hashes.keys() if known.get(name) != hashes.get(name))
        if changed:
            raise ValueError(
                f"the files of Minari dataset '{self.id}' are not those that were first read here: {changed} in "
                f"'{self.data}' changed, so they are damaged, or somebody wrote to the dataset. {self.advice()}. If "
                f"the change was intended, delete '{self.record}'."
            )
        return True

    def write_record(self, hashes: Mapping[str, str]) -> None:
        """Remember the hashes; where nobody may write, nothing is remembered."""
        temporary = self.record.with_name(f".{RECORD}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(json.dumps({"format": 1, "sha256": dict(hashes)}, indent=2) + "\n")
            os.replace(temporary, self.record)
        except PermissionError:
            return
        finally:
            with contextlib.suppress(PermissionError):
                temporary.unlink(missing_ok=True)


def named(name: str, data_dir: str | os.PathLike[str] | None = None) -> Folder:
    """The folder of a dataset.

    Args:
        name: Minari's id; also with a place to download from, such as "hf://farama-minari/D4RL/pen/human-v2".
        data_dir: folder of all datasets; None: Minari's (MINARI_DATASETS_PATH, or ~/.minari/datasets).

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
    except (ValueError, TypeError) as error:  # TypeError: no version.
        raise ValueError(
            f"'{name}' is not a Minari dataset id; those look like 'D4RL/pen/human-v2', with the version at the end."
            f"{_hint(dataset_id, root)}"
        ) from error
    return Folder(root, dataset_id, remote)


def find(name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool) -> Folder:
    """The folder of a dataset, downloaded by Minari if it is missing or lacks files.

    Raises:
        ValueError: if there is no such dataset, or its folder is not whole and `download` is off.
        FileNotFoundError: if it is missing and `download` is off.
        ImportError: if Minari lacks what it downloads with.
        ConnectionError: if it cannot be downloaded.
    """
    folder = named(name, data_dir)
    fault = folder.fault()
    if fault is None:
        return folder
    if not download or os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0"):
        _refuse(folder, fault)
    folder.root.mkdir(parents=True, exist_ok=True)
    # Several processes that start together, one per seed, download once.
    with FileLock(folder.root / f".{folder.id.replace('/', '-')}.lock"):
        if (fault := folder.fault()) is not None:
            _download(folder, fault)
    if (fault := folder.fault()) is not None:
        raise ValueError(f"Minari's download of '{folder.id}' left an incomplete dataset: {fault}. {folder.advice()}")
    return folder


@contextlib.contextmanager
def datasets_path(root: Path) -> Iterator[None]:
    """Minari looks for its datasets in `root`; it takes the folder from an environment variable only."""
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
            f"Minari dataset '{folder.id}' is not on this machine ({fault}), and downloads are off "
            f"({OFFLINE_VARIABLE}, or by argument). Get it with: minari download {folder.id}"
            f"{_hint(folder.id, folder.root)}"
        )
    raise ValueError(f"Minari dataset '{folder.id}' is incomplete: {fault}. {folder.advice()}")


def _download(folder: Folder, fault: str) -> None:
    """By Minari's own downloader; an incomplete folder is completed."""
    state = "incomplete on this machine" if folder.path.exists() else "not on this machine"
    start = f"Minari dataset '{folder.id}' is {state} ({fault}), and cannot be downloaded"
    by_hand = f"On a machine with a network run `minari download {folder.id}`, and copy the folder to '{folder.path}'."
    full = folder.id if folder.remote is None else f"{folder.remote}/{folder.id}"
    try:
        # Minari prints, and standard output belongs to the command that we are part of.
        with datasets_path(folder.root), contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(full, force_download=folder.path.exists())
    except ImportError as error:
        raise ImportError(
            f'{start}: {error}. Install what it needs: pip install "flowpolicies[minari]". Or: {by_hand}'
        ) from error
    except ValueError as error:
        raise ValueError(f"{start}: {error}{_hint(folder.id, folder.root)}") from error
    except Exception as error:  # What the hub's client raises without a network depends on its version.
        raise ConnectionError(f"{start}: {error!r}. {by_hand}") from error


def _hint(dataset_id: str, root: Path) -> str:
    """What was probably meant, among the datasets on this machine."""
    known = [path.parent.parent.relative_to(root).as_posix() for path in root.glob("**/data/metadata.json")]
    close = difflib.get_close_matches(dataset_id, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
