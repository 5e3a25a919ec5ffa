"""`save_pretrained`, `from_pretrained` and `push_to_hub`: policies for others, as folders and in repositories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self, TypedDict, Unpack

import torch
from stable_baselines3.common.policies import BasePolicy

from flowpolicies.core.views import set_mode
from flowpolicies.data import TransitionDataset
from flowpolicies.files import atomic_folder, write_json
from flowpolicies.policies.evaluation import Evaluation
from flowpolicies.policies.schema import FORMAT, VERSION
from flowpolicies.policies.sharing.card import EvaluationSummary, ModelCard, without_home
from flowpolicies.policies.sharing.finding import find, require_hub_id
from flowpolicies.policies.sharing.folder import CARD, CONFIG, RESULTS, WEIGHTS, check_replaceable, checked_weights
from flowpolicies.policies.sharing.hub import SCHEME, HubId, download, upload
from flowpolicies.version import __version__

Evaluated = Evaluation | EvaluationSummary | Sequence[Evaluation | EvaluationSummary]


class Origin(NamedTuple):
    """Where a policy was loaded from."""

    source: str
    """Path of the folder or file, or address of the repository, `hf://user/name`."""
    commit: str | None = None
    """Commit of the repository, as 40 hexadecimal digits; None for folders and files of this machine."""

    def __str__(self) -> str:
        return self.source if self.commit is None else f"{self.source}@{self.commit}"


class CardFacts(TypedDict, total=False):
    """What the author says about a policy, see `PretrainedPolicy.save_pretrained`."""

    license: str | None
    evaluation: Evaluated | None
    dataset: TransitionDataset | Mapping[str, Any] | None
    training: Mapping[str, Any] | None


class PretrainedPolicy(BasePolicy, ABC):
    """Abstract base of policies that are written to and read from folders and repositories for others."""

    origin: Origin | None = None
    """Where `from_pretrained` loaded the policy from; None for other policies."""

    def set_training_mode(self, mode: bool) -> None:
        """Sets the mode of all modules, as `train` and `eval` do.

        Args:
            mode: True for training, which dropout and batch normalisation depend on.
        """
        set_mode(self, mode)

    @abstractmethod
    def declaration(self) -> dict[str, Any]:
        """Everything that a policy file holds besides the weights, as JSON data."""

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        license: str | None = None,
        evaluation: Evaluated | None = None,
        dataset: TransitionDataset | Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes weights, declaration, model card and results to a folder that `from_pretrained` reads.

        The folder appears complete or not at all. An existing folder is replaced if it is empty, or holds a pretrained
        policy and nothing else. What is not given is called "not stated" or "not recorded" in the card.

        Args:
            folder: path of the folder.
            name: name in the model card, such as "pendulum-qflow", or `user/name` of the repository that the folder is
                for; None: the name of the folder.
            license: identifier of the license of the weights, such as "mit".
            evaluation: what `evaluate` returned, or several of it, the most important one first.
            dataset: the training data, of which name, size and fingerprint are written; or JSON data with these.
            training: record of the training, as JSON data, for `results.json`; the card shows `algorithm`, `commands`,
                `seed`, `steps` (phase -> number) and `software` (package -> version).

        Returns:
            The absolute path of the folder.

        Raises:
            FileExistsError: if the folder holds anything else.
            TypeError: as `check_savable`.
        """
        path = Path(folder).expanduser().resolve()
        check_replaceable(path)
        declaration = self.declaration()
        card = ModelCard.make(
            name or path.name, license, evaluation, dataset, training, self.origin, _properties(self, declaration)
        )
        about = {"schema_version": VERSION, "name": card.name, "flowpolicies": __version__}
        with atomic_folder(path) as temporary:
            self.save(str(temporary / WEIGHTS))
            write_json(temporary / CONFIG, {"format": FORMAT, **about, **declaration})
            write_json(temporary / RESULTS, without_home(card.results()))
            (temporary / CARD).write_text(without_home(card.text()), encoding="utf-8")
        return path

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a policy of flowpolicies",
        create_pr: bool = False,
        **card: Unpack[CardFacts],
    ) -> str:
        """Uploads what `save_pretrained` writes to a repository of the Hugging Face Hub, and returns the commit's URL.

        The repository is created if it does not exist. Needs `pip install 'flowpolicies[hub]'`.

        Args:
            repo_id: `user/name` or `hf://user/name`.
            private: whether a new repository is private; None: as your settings on the Hub say.
            token: token with the permission to write; None: that of `hf auth login` or HF_TOKEN.
            revision: branch, which is created if it does not exist; None: "main".
            commit_message: first line of the commit's message.
            create_pr: propose the commit in a pull request instead of committing it.
            card: license, evaluation, dataset and training as in `save_pretrained`.

        Raises:
            ValueError: if `repo_id` is not of this form.
            PermissionError: if the token is missing, or does not allow writing.
            OSError: if the connection fails, or the server refuses the files.
            ImportError: if huggingface_hub is not installed.
        """
        hub_id = require_hub_id(repo_id, revision)
        with TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "policy", name=hub_id.repo, **card)
            return upload(
                folder, hub_id, private=private, token=token, commit_message=commit_message, create_pr=create_pr
            )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: torch.device | str = "auto",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Reads a policy from a folder of `save_pretrained`, a policy file, this package, or the Hugging Face Hub.

        A text is looked up in this order: an existing folder or file; "flowpolicies/NAME", a policy that the package
        brings; `user/name`, a repository of the Hub, unless there is a folder `user`. `hf://user/name` is always a
        repository. Nothing in the files is executed; networks and samplers are found by their registered names
        (docs/plugins.md). `policy.origin` tells where the policy came from.

        Args:
            source: path, name of a policy of the package, or repository, also with `@revision`.
            device: torch device; "auto": CUDA if it is available.
            revision: branch, tag or commit of the repository; a commit always means the same files. None: "main".
            token: token for private repositories; None: that of `hf auth login` or HF_TOKEN.
            cache_dir: folder of the downloads; None: the Hub's usual cache (HF_HOME).
            local_files_only: do not connect, use what is in the cache.

        Raises:
            FileNotFoundError: if there is nothing of that name; the message says where it was looked for.
            PermissionError: if the repository is private or gated, and the token does not open it.
            ArtifactError: if a file is damaged, of another kind, or of a newer version.
            ValueError: if `revision` is given for a folder or file.
            ImportError: if a package is missing that the policy or the Hub needs; the message names it.
        """
        found = find(source, revision)
        if isinstance(found, HubId):
            options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            folder = _download(found, str(source), **options)
            file, origin = checked_weights(folder), Origin(str(HubId(found.repo, None)), folder.name)
        else:
            file, origin = checked_weights(found) if found.is_dir() else found, Origin(str(source))
        policy = cls.load(str(file), device)
        policy.origin = origin
        return policy


def _download(hub_id: HubId, source: str, **options: Any) -> Path:
    try:
        return download(hub_id, **options)
    except (FileNotFoundError, ImportError) as error:
        if source.startswith(SCHEME):
            raise
        raise type(error)(f"there is no folder or file '{source}' here, and {error}") from error


def _properties(policy: PretrainedPolicy, declaration: Mapping[str, Any]) -> dict[str, str]:
    """What the model card says about the policy itself."""
    found = {
        "observations": _short(policy.observation_space),
        "actions": _short(policy.action_space),
        "networks": ", ".join(declaration["networks"]),
        "sampler": str(declaration["sampler"]["type"]),
        "trained parameters": f"{sum(one.numel() for one in policy.parameters() if one.requires_grad):,}",
    }
    if declaration["horizon"] > 1:
        found["chunks"] = f"{declaration['horizon']} actions, of which {declaration['execute']} are executed"
    return found


def _short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
