"""What the text names that a policy is loaded from: a folder or file, a policy of the package, or a repository."""

from __future__ import annotations

import re
from pathlib import Path

from flowpolicies.messages import did_you_mean
from flowpolicies.policies.sharing.folder import CONFIG, is_pretrained
from flowpolicies.policies.sharing.hub import SCHEME, HubId, parse_hub_id
from flowpolicies.version import __version__

BOX = Path(__file__).parents[2] / "pretrained"
"""Folder of the policies that the package brings, one folder each; `flowpolicies/NAME` loads them."""


def find(source: str | Path, revision: str | None = None) -> Path | HubId:
    """The existing folder or file, or else the repository that a source names.

    Raises:
        FileNotFoundError: if it is neither.
        ValueError: if a revision is given for a folder or file, or the address of a repository is malformed.
    """
    path, text = Path(source).expanduser(), str(source) if isinstance(source, str) else ""
    local = path if path.exists() else None
    if local is None and (named := re.fullmatch(r"flowpolicies/([^/]+)", text)):
        local = find_in_box(named[1])
    if local is not None:
        if revision is not None:
            raise ValueError(f"'{source}' is a folder or file of this machine, which has no revision {revision!r}.")
        return local
    hub_id = parse_hub_id(text, revision)
    if hub_id is not None and (text.startswith(SCHEME) or not _looks_local(path)):
        return hub_id
    near = [other.name for other in path.parent.glob("*")]
    address = "" if hub_id is None else f" A repository of that name would be {hub_id}."
    raise FileNotFoundError(
        f"no pretrained policy '{source}': there is no such folder or file."
        f"{did_you_mean(path.name, near) or ' Names of repositories are user/name.'}{address}"
    )


def _looks_local(path: Path) -> bool:
    """Whether a path that does not exist is rather mistyped than the name of a repository."""
    return path.parent.is_dir() or path.suffix in (".safetensors", ".zip")


def find_in_box(name: str) -> Path:
    """The folder of a policy that the package brings.

    Raises:
        FileNotFoundError: if the package does not bring it; the message lists those that it does.
    """
    known = list_box()
    if name not in known:
        raise FileNotFoundError(
            f"flowpolicies {__version__} brings no policy '{name}' (it brings: {', '.join(known) or 'none'})."
            f"{did_you_mean(name, known)} A repository of that name would be hf://flowpolicies/{name}."
        )
    return BOX / name


def shared_source(path: Path) -> str | Path | None:
    """What `from_pretrained` takes for a path of a command line; None if it names another kind of file.

    Names of repositories are known by `hf://` only, or every mistyped path would be looked up on the Hub.
    """
    text = path.as_posix()
    if text.startswith("hf:/"):  # A path has one of the two slashes.
        return text.replace("hf:/", "hf://", 1)
    if is_pretrained(path):
        return path
    return text if re.fullmatch(r"flowpolicies/[^/]+", text) and not path.exists() else None


def list_box() -> list[str]:
    """Names of the policies that the package brings."""
    return sorted(config.parent.name for config in BOX.glob(f"*/{CONFIG}"))


def require_hub_id(repo_id: str, revision: str | None) -> HubId:
    """The repository of a name.

    Raises:
        ValueError: if it is not the name of a repository.
    """
    hub_id = parse_hub_id(repo_id, revision)
    if hub_id is None:
        raise ValueError(f"'{repo_id}' is not the name of a repository: it must be user/name or hf://user/name.")
    return hub_id
