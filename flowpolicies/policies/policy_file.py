"""Policy files: weights and a declaration as JSON, in the format of safetensors. Nothing in a file is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load, save, save_file
from torch import Tensor

from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.containers import is_zip, name_of, read_bytes, safetensors_header
from flowpolicies.files import atomic_path
from flowpolicies.policies.building import check_finite
from flowpolicies.policies.schema import FORMAT, VERSION, declared


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

    The whole file is checked first: its header, that its tensors cover the rest of it, and that they are finite.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not a policy file, is damaged, or was written by a newer version.
    """
    name = name_of(source)
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise FileNotFoundError(f"no policy file {name!r}; FlowPolicy.load reads what FlowPolicy.save wrote")
    content = read_bytes(source)
    if is_zip(content):
        raise ArtifactError(
            name,
            "is not a policy file, but a zip",
            hint="Zips of model.save() are read by the algorithm's load(), for example "
            "flowpolicies.FQL.load(path).policy.",
        )
    header = safetensors_header(content, name)
    config = declared(header, name)
    with reading(name):
        weights = load(content)
        check_finite(weights)
    return config, {key: tensor.to(device) for key, tensor in weights.items()}
