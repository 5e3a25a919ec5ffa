"""Policy files: weights and a declaration as JSON, in the format of safetensors. Nothing in a file is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from flowpolicies.artifacts import parse_json
from flowpolicies.files import atomic_path
from flowpolicies.policies.schema import FORMAT, VERSION, newest


def write_policy(target: str | Path | BinaryIO, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes a declaration and weights to a path, atomically, or to a binary file object."""
    metadata = {"config": json.dumps({"format": FORMAT, "version": VERSION, **config})}
    copies = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    if not isinstance(target, str | Path):
        target.write(save(copies, metadata))
        return
    with atomic_path(Path(target)) as temporary:
        save_file(copies, temporary, metadata=metadata)


def read_policy(source: str | Path | BinaryIO, device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The declaration, as one of the newest version, and the weights of a policy file or of a binary file object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a policy file, or one of a newer version.
    """
    what = repr(str(source)) if isinstance(source, str | Path) else f"the file object {source!r}"
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise FileNotFoundError(f"no policy file {what}; FlowPolicy.load reads what FlowPolicy.save wrote")
    try:
        metadata, weights = _read_path(source, device) if isinstance(source, str | Path) else _read_object(source)
    except SafetensorError as error:
        raise ValueError(
            f"{what} is not a policy file ({error}). Zips of model.save() are read by the algorithm's "
            "load(), for example flowpolicies.FQL.load(path).policy."
        ) from error
    place = str(source) if isinstance(source, str | Path) else what
    return newest(parse_json(metadata.get("config", "{}"), place, "metadata"), place, "metadata"), weights


def _read_path(path: str | Path, device: torch.device) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt", device=str(device)) as file:
        return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _read_object(source: BinaryIO) -> tuple[dict[str, str], dict[str, Tensor]]:
    content = source.read()
    if not content:
        raise ValueError(f"the file object {source!r} has no bytes left to read. Call its seek(0) before loading.")
    weights = load(content)
    # The header is the length of a JSON text as 8 bytes, and the text (https://github.com/huggingface/safetensors).
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header.get("__metadata__") or {}, weights
