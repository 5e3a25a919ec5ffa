"""The text of an address, such as "npz:data.npz,min_length=5": its source, its name and its options.

The name begins after the first colon, so that it may hold colons itself, as the paths of Windows do. Options follow the
name: ",key=value", where the key is a lower-case identifier and the value is JSON, or text where it is not valid JSON.
A value that holds a comma is written as a JSON string: `data_dir="/data, old"`. If a file or folder of the name with
its commas exists, the commas belong to the name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowpolicies.data.downloads.files import existing_file, expanded
from flowpolicies.data.names import FILES, INDEX, Storage
from flowpolicies.data.switches import as_switch as as_switch
from flowpolicies.data.switches import check_switches as check_switches

SUFFIXES = {".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5", ".pkl": "sb3"}
"""Source of a file by the ending of its name, for paths without a source."""

LONGEST = 4096
"""Greatest number of characters of an address, which is also that of a path."""

# The value is an atomic group: text in quotes is also text without a comma, so both would be tried for every option.
_OPTION = r',\s*[a-z]\w*=(?>"(?:[^"\\]|\\.)*"(?=\s*(?:,|$))|[^,]*)'
_ALL_OPTIONS = re.compile(rf"(?:{_OPTION})+$")
_PARTS = re.compile(r',\s*([a-z]\w*)=("(?:[^"\\]|\\.)*"(?=,|$)|[^,]*)')


def split_options(address: str) -> tuple[str, dict[str, Any]]:
    """`"sb3:buffer.pkl,trust=true"` -> `("sb3:buffer.pkl", {"trust": True})`.

    Raises:
        ValueError: if an option is given twice, or the address has more than `LONGEST` characters.
    """
    if len(address) > LONGEST:
        raise ValueError(f"'{address[:80]}...' has {len(address):,} characters; addresses have at most {LONGEST:,}.")
    match = _ALL_OPTIONS.search(address)
    if match is None or _names_a_path(address):
        return address, {}
    parts = list(_PARTS.finditer(address, match.start()))
    # An option-like end of an existing path, such as "a,b=1.npz", belongs to the path.
    first = next((i for i in range(len(parts) - 1, 0, -1) if _names_a_path(address[: parts[i].start()])), 0)
    options: dict[str, Any] = {}
    for part in parts[first:]:
        if part[1] in options:
            raise ValueError(f"'{address}' has the option '{part[1]}' twice. Give it once.")
        options[part[1]] = _from_text(part[2].strip())
    return address[: parts[first].start()], options


def join_options(base: str, options: Mapping[str, Any]) -> str:
    """The address with options that `split_options` splits into `base` and the same options."""
    return base + "".join(f",{key}={_to_text(value)}" for key, value in options.items())


def check_no_rest(address: str, base: str, name: str) -> None:
    """Checks that nothing but options follows the path in an address.

    Args:
        address: the address, for the message.
        base: the address without its options.
        name: the path in the address.

    Raises:
        ValueError: if there is no file or folder of that name, but one of the text before a comma.
    """
    if "," not in name or _exists(name):
        return
    commas = [place.start() for place in re.finditer(",", name)]
    place = next((place for place in reversed(commas) if _exists(name[:place])), None)
    if place is not None:
        raise ValueError(
            f"'{address}': '{name[place:]}' after the path '{name[:place]}' is not an option. Options are written "
            f"',key=value', with a lower-case key, after the name: {base.partition(':')[0]}:{name[:place]},key=value."
        )


def address_of(path: str | os.PathLike[str]) -> str:
    """The address of a dataset in a file or folder, whose source follows from the ending of the name.

    .npz files belong to the source npz, .hdf5 and .h5 files to hdf5, .pkl files to sb3, and folders to memmap.

    Raises:
        ValueError: for a file with another ending.
        FileNotFoundError: for a folder that does not hold a dataset.
    """
    given = Path(path)
    if source := SUFFIXES.get(given.suffix.lower()):
        return f"{source}:{given}"
    if expanded(given).is_dir() or not given.suffix:
        return f"memmap:{given}"
    known = ", ".join(SUFFIXES)
    raise ValueError(
        f"the path '{given}' does not say which kind of dataset it is (known endings: {known}, or a folder that "
        "flowpolicies.data.write_memmap wrote). Pass an address, such as 'npz:PATH'."
    )


def check_folder(path: Path) -> None:
    """Raises a FileNotFoundError unless a folder is one that `flowpolicies.data.write_memmap` wrote."""
    if len(path.name) > 255 or not (path / INDEX).exists():
        raise FileNotFoundError(
            f"no dataset in '{str(path)[:300]}': a folder with '{INDEX}' is needed, which "
            "flowpolicies.data.write_memmap writes."
        )


def check_exists(source: str, name: str, storage: Storage | None) -> None:
    """Raises a FileNotFoundError if a built-in source has no file of that name."""
    if source == "memmap":
        check_folder(expanded(name))
    elif source in FILES:
        existing_file(name, f"the file of '{source}:{name}'" if storage == "memmap" else FILES[source])


def path_hint(address: str) -> str:
    """Advice for an address that looks like a path, which lacks its source; "" for others."""
    source = SUFFIXES.get(Path(split_options(address)[0]).suffix.lower())
    return f" It looks like a path: write '{source}:{address}'." if source and "'" not in address else ""


def _exists(name: str) -> bool:
    try:
        return expanded(name).exists()
    except (OSError, ValueError):  # The name is too long for a path, or holds a null byte.
        return False


def _names_a_path(address: str) -> bool:
    """Whether the name of an address is the path of a file or folder."""
    name = address.partition(":")[2]
    return bool(name) and _exists(name)


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _to_text(value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        return json.dumps(value)
    text = os.fspath(value)
    is_plain = "," not in text and text == text.strip() and _from_text(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)
