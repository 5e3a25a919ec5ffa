"""The folder of a pretrained policy: its files, what may be replaced, and whether its files agree.

    config.json         declaration of the policy, with the version of its schema
    model.safetensors   policy file: weights, and the same declaration (see `flowpolicies.policies.policy_file`)
    README.md           model card
    results.json        evaluations, data, training, software and hardware as JSON

The first two are needed to load the policy. Nothing in any of them is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.containers import read_bytes, safetensors_header
from flowpolicies.policies.schema import FORMAT, declared, newest

CONFIG, WEIGHTS, CARD, RESULTS = "config.json", "model.safetensors", "README.md", "results.json"
FILES = (CONFIG, WEIGHTS, CARD, RESULTS)
MAX_JSON_BYTES = 1_000_000
"""Largest JSON file that is read; those that flowpolicies writes are below 100 kB."""
ABOUT = ("name", "flowpolicies")
"""Keys of `config.json` besides the declaration: name of the policy, and the version of flowpolicies that wrote it."""


def check_replaceable(path: Path) -> None:
    """Raises an error unless a pretrained policy may be written to a path.

    It may where there is nothing, an empty folder, or a folder of a pretrained policy and nothing else.

    Raises:
        FileExistsError: if there is anything else.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"'{path}' is a file. Choose the path of a folder.")
    names = sorted(entry.name for entry in path.iterdir())
    if not names or (set(names) <= set(FILES) and is_pretrained(path)):
        return
    foreign = [name for name in names if name not in FILES] or names
    listed = ", ".join(foreign[:5]) + (", ..." if foreign[5:] else "")
    raise FileExistsError(
        f"'{path}' holds other files ({listed}), which would be deleted. Choose a new folder, or one that holds a "
        "pretrained policy and nothing else."
    )


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is that of a pretrained policy. That of a run also has a `config.json`, but without a format."""
    try:
        return bool(read_config(folder).get("format") == FORMAT)
    except (ArtifactError, FileNotFoundError):
        return False


def read_config(folder: Path) -> dict[str, Any]:
    """Content of `config.json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not a JSON object, or larger than `MAX_JSON_BYTES`.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"'{folder}' is not the folder of a pretrained policy: it has no {CONFIG}. FlowPolicy.from_pretrained "
            "reads folders that save_pretrained wrote, and policy files."
        )
    return _read_object(path)


def evaluated_in(folder: Path) -> str | None:
    """The environment of the first evaluation in `results.json`, as its author wrote it; None if it has none.

    Making an environment can import a module that its address names, so ask the user before using a stranger's.

    Raises:
        ArtifactError: if the file is not a JSON object, or larger than `MAX_JSON_BYTES`.
    """
    path = folder / RESULTS
    if not path.is_file():
        return None
    with reading(path):
        found = [entry["environment"] for entry in _read_object(path)["evaluations"]]
    return next((name for name in found if isinstance(name, str)), None)


def _read_object(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise ArtifactError(path, f"it has more than {MAX_JSON_BYTES:,} bytes, which flowpolicies does not write")
    data = parse_json(text, path)
    if not isinstance(data, dict):
        raise ArtifactError(path, f"it holds a {type(data).__name__}, but must hold an object")
    return data


def checked_weights(folder: Path) -> Path:
    """The policy file of a folder, whose declaration is that of `config.json`.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ArtifactError: if they do not agree, or are damaged, of another kind or of a newer version.
    """
    config, path = read_config(folder), folder / WEIGHTS
    if "algorithm" in config and "format" not in config:
        raise ArtifactError(
            folder,
            "it is the folder of a training run",
            hint=f"Make a folder for others of it with: flowpolicies export {folder} --out FOLDER. Or load its policy: "
            f"FlowPolicy.from_pretrained('{folder / 'policy.safetensors'}').",
        )
    readable = newest(config, folder / CONFIG, "", "schema_version")
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' has no {WEIGHTS}, the weights of the policy. Download or copy it too.")
    written = declared(safetensors_header(read_bytes(path), str(path)), str(path))
    readable = {key: value for key, value in readable.items() if key not in ABOUT}
    different = sorted(key for key in readable.keys() | written.keys() if readable.get(key) != written.get(key))
    if different:
        raise ArtifactError(
            folder,
            f"{CONFIG} and {WEIGHTS} declare different policies",
            place=", ".join(different),
            hint=f"They are of different policies, or one was edited. {WEIGHTS} can be loaded alone: "
            f"FlowPolicy.from_pretrained('{path}').",
        )
    return path
