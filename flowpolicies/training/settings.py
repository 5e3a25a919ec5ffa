"""Settings of a training run that are not hyperparameters of its algorithm."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, final

import tyro

from flowpolicies.choices import Precision, check_compile, check_device, deprecated_backend
from flowpolicies.data.addresses import SUFFIXES, split_options
from flowpolicies.data.names import FILES, RewardTransformName, Storage
from flowpolicies.moved import moved_names
from flowpolicies.policies.intervals import ROWS
from flowpolicies.shell.fields import NonNegativeInt, Probability, check_fields
from flowpolicies.training.runs import RunFolder


@final
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Dataset, environment, duration, evaluation and files of a run.

    Examples:
        >>> from pathlib import Path
        >>> from flowpolicies import FQL
        >>> from flowpolicies.training import TrainSettings, train
        >>> settings = TrainSettings(dataset="pendulum:mixed", steps=1_000, run_dir=Path("runs/fql-pendulum"))
        >>> folder = train(FQL, FQL.Config(alpha=10.0), settings)
        offline step ...
    """

    added: ClassVar[Mapping[str, Any]] = {
        "reward_transform": "none",
        "frame_stack": 1,
        "p_aug": 0.0,
        "rotate_every": None,
        "validation": 0.0,
        "keep_best": None,
        "eval_workers": 1,
        "compile": False,
        "precision": "fp32",
        "tensorboard": True,
        "wandb": None,
    }
    """Fields that records of the first runs lack, and the values that act as those runs did."""
    renamed: ClassVar[Mapping[str, str]] = {"compile_backend": "compile"}
    """Old names of fields and their present names. Old names work until 1.0, with a deprecation warning."""

    dataset: str | None = None
    """Address of the dataset: ogbench:NAME, npz:PATH, or one of another source in `flowpolicies list datasets`.
    Options of the source may follow, as in hdf5:PATH,max_episode_steps=1000.
    None: online training without a dataset, with --env, --steps 0 and --online-steps."""
    data_dir: Path | None = None
    """Folder of the dataset's files, for instance the one that `flowpolicies data generate` wrote to.
    None: the folder in which the source keeps its files."""
    storage: Storage | None = None
    """How the dataset is stored: in ram, or as memmap, in files that are written once and shared by all runs.
    None: the source decides."""
    cache_dir: Path | None = None
    """Folder of the memmap files, which are as large as the dataset. None: ~/.cache/flowpolicies/memmap."""
    compact: bool = False
    """Store each state once, instead of as an observation and as a next observation, which halves the memory."""
    min_length: int | None = None
    """Drop the episodes of the dataset with fewer steps, such as those that are shorter than an action chunk.
    None: keep all episodes."""
    rotate_every: int | None = None
    """Gradient steps on one file of a dataset of several files before the next one (1000 in the papers' code).
    None: batches are drawn uniformly from all files."""
    frame_stack: int = 1
    """Number of consecutive images in an observation; the dataset has one image in each row."""
    p_aug: Probability = 0.0
    """Probability that the images of a batch are shifted by up to 3 pixels (random crops)."""
    validation: Probability = 0.0
    """Share of the dataset's episodes that are held out, at least one of them. They are the same for all seeds. Every
    --log-every steps the losses on them are logged as validation/..., such as validation/critic/loss. 0: none."""
    env: str | None = None
    """Environment for evaluation and online training: an address or a Gymnasium id.
    None: the environment that the dataset's address names, if there is one."""
    reward_transform: RewardTransformName = "none"
    """Transform of the rewards to train on, in the dataset and online; docs/presets.md describes them.
    Evaluations report the original rewards."""
    steps: NonNegativeInt = 1_000_000
    """Number of gradient steps on the dataset, the offline phase."""
    online_steps: NonNegativeInt = 0
    """Number of environment steps of online training, after the offline phase."""
    n_envs: int = 1
    """Number of environments in which online training collects transitions."""
    seed: NonNegativeInt = 0
    """Seed of the whole run: networks, batches, noise and environments."""
    run_dir: Path | None = None
    """Folder of the run. None: runs/ALGORITHM-DATASET-seedSEED."""
    resume: bool = False
    """Continue the run in the folder from its newest whole checkpoint, or start it if there is no checkpoint."""
    overwrite: bool = False
    """Delete the run in the folder and start again."""
    eval_every: NonNegativeInt = 100_000
    """Steps between two evaluations: gradient steps offline, environment steps online.
    0: only at the end of each phase."""
    eval_episodes: NonNegativeInt = 50
    """Number of episodes in each evaluation. 0: no evaluations."""
    eval_envs: int = ROWS
    """Number of environments that an evaluation steps at once, so that the policy acts in all of them in one call.
    The results do not depend on it."""
    eval_workers: int = 1
    """Number of processes that the environments of an evaluation are divided among; 1: none but that of the training.
    Worth while if a step of the environment takes longer than the policy. The results do not depend on it."""
    checkpoint_every: NonNegativeInt = 50_000
    """Steps between two checkpoints. 0: only at the end of each phase and after Ctrl-C."""
    keep_checkpoints: int = 2
    """Number of checkpoints to keep; older ones are deleted."""
    keep_best: str | None = None
    """Logged number of which the best value so far is kept, with the model that had it, in best.zip: for instance
    eval/success_rate, eval/ep_rew_mean or validation/critic/loss. Of losses the smallest is best, else the largest.
    None: no model is kept but those of the newest checkpoints."""
    save_replay_buffer: bool = True
    """Save the online transitions with each checkpoint that is kept.
    Without them, a run that is resumed online starts with an empty replay buffer."""
    log_every: int = 1000
    """Number of gradient steps between two rows of the training log, in the offline phase."""
    print_log: bool = False
    """Also print the rows of the training log as tables."""
    tensorboard: bool = True
    """Write the log for TensorBoard as well, to the folder tensorboard of the run."""
    wandb: str | None = None
    """Project of Weights & Biases to log the run to as well; it needs `pip install 'flowpolicies[wandb]'`.
    WANDB_MODE=offline keeps the log on this machine. None: do not."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:1. auto: CUDA if it is available."""
    compile: bool | Literal["auto"] = False
    """Compile the losses, which takes up to a minute and makes each update faster; it needs a C++ compiler.
    auto: if it repays in this run. Results differ in the last bits between compiled and eager updates."""
    precision: Precision = "fp32"
    """Number type of matrix products in updates. bf16: faster, on processors and GPUs with units for it, and not yet
    recommended, because returns were not compared. tf32: on NVIDIA GPUs."""

    compile_backend: InitVar[Annotated[str | None, tyro.conf.Suppress]] = None

    def __post_init__(self, compile_backend: str | None) -> None:
        if compile_backend is not None:
            object.__setattr__(self, "compile", deprecated_backend(compile_backend))
        check_fields(self)
        check_device(self.device)
        check_compile(self.compile)
        for prefix, missing in {"eval/": not self.eval_episodes, "validation/": not self.validation}.items():
            if missing and (self.keep_best or "").startswith(prefix):
                flag = "--eval-episodes" if prefix == "eval/" else "--validation"
                raise ValueError(f"--keep-best {self.keep_best} is never logged with {flag} 0. Pass {flag} too.")

    def folder(self, algorithm: str, suffix: str | None = None) -> Path:
        """Folder of a run of the algorithm with these settings.

        Args:
            algorithm: name of the algorithm.
            suffix: end of its name, if `run_dir` does not give another one; None: -seedSEED.
        """
        suffix = f"-seed{self.seed}" if suffix is None else suffix
        if self.run_dir is not None:
            return self.run_dir
        address, options = split_options(self.dataset or self.env or "online")
        source, colon, base = address.partition(":")
        base = base if colon else address
        short = Path(base.rpartition(":")[2]).name.removesuffix(".npz")
        # Files are named by their last part, but datasets of other sources may differ in the other parts only.
        name = short if source in (*SUFFIXES.values(), "memmap") else base
        names = [f"{algorithm}-{'-'.join([part, *map(str, options.values())])}{suffix}" for part in (name, short)]
        new, old = (Path("runs") / re.sub(r"[^\w.-]+", "-", text) for text in names)
        return old if self.resume and not new.exists() and self._began(old) else new

    def environment(self) -> str | None:
        """Address of the environment, or else of the dataset's environment; None if there is neither."""
        if self.env is not None or self.dataset is None:
            return self.env
        from flowpolicies.data.sources import environment_of

        folder = {} if self.data_dir is None else {"data_dir": self.data_dir.expanduser().absolute()}
        return environment_of(self.dataset, **folder)

    def check_inputs(self) -> None:
        """Checks what can be known of the dataset and the environment without loading them.

        Raises:
            ValueError: if one that is needed is not given, or the source of the dataset is unknown.
            FileNotFoundError: if the file of the dataset does not exist.
            ImportError: if the package wandb is needed and not installed.
        """
        if self.wandb is not None and find_spec("wandb") is None:
            raise ImportError("--wandb needs the package wandb: pip install 'flowpolicies[wandb]'")
        if self.dataset is not None:
            from flowpolicies.data.sources import check_address

            folder = {} if self.data_dir is None else {"data_dir": self.data_dir}
            check_address(self.dataset, storage=self.storage, **folder)
        elif self.steps > 0 or self.online_steps == 0:
            raise ValueError(
                f"there is no dataset for --steps {self.steps}. Pass --dataset, or train online without a dataset: "
                "--env, --steps 0 and --online-steps N."
            )
        if self.online_steps > 0 and self.environment() is None:
            named = "" if self.dataset is None else f", and '{self.dataset}' does not name one"
            raise ValueError(f"online training needs an environment{named}. Pass --env.")
        if self.env is not None and (self.online_steps > 0 or self.eval_episodes > 0) and not self._may_register():
            from flowpolicies.data.sources import check_environment_address

            check_environment_address(self.env)

    def _may_register(self) -> bool:
        """Whether loading the dataset may register environments of Gymnasium."""
        return self.dataset is not None and self.dataset.partition(":")[0] not in (*FILES, "memmap")

    def _began(self, folder: Path) -> bool:
        """Whether a run on the same dataset is in a folder, which older versions named in another way."""
        return _dataset_in(folder)[:1] == (self.dataset,)

    def check_same_dataset(self, folder: Path) -> None:
        """Checks that a folder that was not chosen by the user holds no run on another dataset.

        Different datasets may have the same folder: `npz:a/data.npz` and `npz:b/data.npz` are named by the last part.
        Whether a run can be resumed is checked when the data are loaded.

        Raises:
            FileExistsError: if it does.
        """
        there, here = _dataset_in(folder), (self.dataset, None if self.data_dir is None else str(self.data_dir))
        if self.run_dir is not None or self.resume or not there or there == here:
            return
        flag, place = ("", 0) if there[0] != here[0] else ("--data-dir ", 1)
        raise FileExistsError(
            f"'{folder}' holds a run on another dataset, {flag}{there[place]} and not {flag}{here[place]}. Choose "
            f"another folder with --run-dir; to replace that run, pass --run-dir {folder} --overwrite."
        )


def _dataset_in(folder: Path) -> tuple[Any, ...]:
    """Address and folder of the dataset of the run in a folder; empty if there is none, or it does not say so."""
    try:
        record = json.loads((folder / "config.json").read_text())
        return record["dataset"]["address"], record.get("settings", {}).get("data_dir")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def check_start(algorithm: str, settings: TrainSettings) -> RunFolder:
    """The folder of a run, if the run can start. Neither the data nor torch is loaded for this.

    Args:
        algorithm: name of the algorithm.
        settings: settings of the run.

    Raises:
        FileExistsError, ArtifactError, ValueError: as `RunFolder.check_free`, `TrainSettings.check_inputs` and
            `TrainSettings.check_same_dataset`.
        FileNotFoundError: if the file of the dataset does not exist.
    """
    folder = RunFolder(settings.folder(algorithm))
    settings.check_same_dataset(folder.path)
    folder.check_free(resume=settings.resume, overwrite=settings.overwrite)
    settings.check_inputs()
    return folder


__getattr__ = moved_names(__name__, {"Knobs": "flowpolicies.shell.hyperparameters:SB3Hyperparameters"})
