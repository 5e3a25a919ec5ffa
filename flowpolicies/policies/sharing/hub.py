"""Download from and upload to the Hugging Face Hub, or a server with its interface (`HF_ENDPOINT`).

The package huggingface_hub does the work: its cache, its tokens (`hf auth login`, `HF_TOKEN`) and its offline mode
(`HF_HUB_OFFLINE=1`) apply. Files are only data here, see `flowpolicies.policies.sharing.folder`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flowpolicies.artifacts import ArtifactError
from flowpolicies.policies.sharing.folder import CONFIG, FILES, WEIGHTS
from flowpolicies.version import __version__

SCHEME = "hf://"
_WORD = r"[A-Za-z0-9_][\w.-]*"
_ID = re.compile(rf"(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>[^@\s]+))?", re.ASCII)


class HubId(NamedTuple):
    """A repository of the Hub, and what of it is meant."""

    repo: str
    """Name of the repository, `user/name`."""
    revision: str | None
    """Branch, tag or commit; None: the branch "main" as it is now."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}" + ("" if self.revision is None else f"@{self.revision}")


def parse_hub_id(text: str, revision: str | None = None) -> HubId | None:
    """The repository that `hf://user/name`, `user/name` or either with `@revision` names; None if the text is neither.

    Raises:
        ValueError: if it begins with `hf://` but is not such an address, or names another revision than `revision`.
    """
    found = _ID.fullmatch(text.removeprefix(SCHEME))
    if found is None:
        if text.startswith(SCHEME):
            raise ValueError(f"'{text}' is not an address of the Hub: it must be hf://user/name or hf://user/name@REV.")
        return None
    named = found["revision"]
    if None not in (named, revision) and named != revision:
        raise ValueError(f"'{text}' names the revision {named!r}, but revision={revision!r} is given: pass one.")
    return HubId(found["repo"], named or revision)


def download(
    hub_id: HubId,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Downloads declaration and weights into the cache, unless they are there, and returns their folder.

    The name of the folder is the commit. Both files are of one commit, also if the branch moves in between.

    Raises:
        FileNotFoundError: if there is no such repository, revision, or nothing in the cache and no connection.
        PermissionError: if it is private or gated, and the token does not open it.
        ArtifactError: if the repository does not hold a policy.
        ImportError: if huggingface_hub is not installed.
    """
    hub: Any = _import_hub()
    options = {
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "library_name": "flowpolicies",
        "library_version": __version__,
    }
    with _errors_of(hub_id):
        config = Path(hub.hf_hub_download(hub_id.repo, CONFIG, revision=hub_id.revision, **options))
        hub.hf_hub_download(hub_id.repo, WEIGHTS, revision=config.parent.name, **options)
    return config.parent


def upload(
    folder: Path,
    hub_id: HubId,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload a policy of flowpolicies",
    create_pr: bool = False,
) -> str:
    """Uploads the files of a pretrained policy as one commit, and returns the commit's address.

    The repository and the branch are created if they do not exist; other files of the repository stay.

    Args:
        folder: folder of a pretrained policy.
        hub_id: repository, and the branch; None: "main".
        private: whether a new repository is private; None: as the user's or organisation's settings say.
        token: token with the permission to write; None: the saved one.
        commit_message: first line of the commit's message.
        create_pr: propose the commit in a pull request instead of committing it.

    Raises:
        PermissionError: if the token is missing, or does not allow writing.
        FileNotFoundError: if the repository or branch does not exist and cannot be created.
        OSError: if the connection fails or the server refuses the files; the message is the server's.
        ImportError: if huggingface_hub is not installed.
    """
    hub: Any = _import_hub()
    api = hub.HfApi(token=token, library_name="flowpolicies", library_version=__version__)
    additions = [hub.CommitOperationAdd(name, str(folder / name)) for name in FILES if (folder / name).is_file()]
    with _errors_of(hub_id):
        api.create_repo(hub_id.repo, private=private, exist_ok=True)
        if hub_id.revision is not None and not create_pr:
            api.create_branch(hub_id.repo, branch=hub_id.revision, exist_ok=True)
        commit = api.create_commit(
            hub_id.repo, additions, commit_message=commit_message, revision=hub_id.revision, create_pr=create_pr
        )
    return str(commit.pr_url or commit.commit_url)


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "addresses of the Hub need the package huggingface_hub. Install it with: pip install "
            "'flowpolicies[hub]'. Folders and policy files load without it."
        ) from error
    return huggingface_hub


@contextmanager
def _errors_of(hub_id: HubId) -> Iterator[None]:
    """Raises errors of huggingface_hub as built-in ones, which say what to do next."""
    from huggingface_hub import errors

    # In versions from 1.0 on, failed connections are errors of httpx; requests' errors are OSErrors.
    transport: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise FileNotFoundError(
                f"'{hub_id}' is not in the cache, and was not downloaded: {_first_line(error.__cause__ or error)}. "
                "Load it once with a connection, or pass the path of a folder."
            ) from error
        raise ArtifactError(
            str(hub_id),
            f"the repository has not both {CONFIG} and {WEIGHTS}",
            hint="It does not hold a policy of flowpolicies, see FlowPolicy.push_to_hub.",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(error, hub_id) from error
    except (errors.OfflineModeIsEnabled, transport) as error:
        raise ConnectionError(f"cannot reach the server for '{hub_id}': {_first_line(error)}") from error


def _refusal(error: Any, hub_id: HubId) -> OSError:
    """What to raise for an answer of the server that is an error."""
    from huggingface_hub import constants, errors

    server, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{hub_id.repo}"
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"'{hub_id}' is gated: ask for access at {page}, then log in with `hf auth login` or pass token=."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"there is no repository '{hub_id.repo}' at {server}, or it is private. Check the name; for a private one "
            "log in with `hf auth login` or pass token=."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"'{SCHEME}{hub_id.repo}' has no revision '{hub_id.revision}'. Its branches, tags and commits are at "
            f"{page}/commits/main."
        )
    if getattr(error.response, "status_code", None) in (401, 403):
        return PermissionError(
            f"{server} does not allow this for '{hub_id}': {_first_line(error)}. Log in with `hf auth login`, or pass "
            "a token= that may."
        )
    return OSError(f"{server} failed with '{hub_id}': {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines() if line.strip())
    return next(lines, type(error).__name__).rstrip(".")
