"""What a training run is asked for, besides the algorithm's own hyperparameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

from flowpolicies.data import RewardTransformName
from flowpolicies.data.formats.memmap import Storage
from flowpolicies.data.sources import split_options
from flowpolicies.policies.devices import check_device
from flowpolicies.shell.fields import NonNegativeInt, Probability, check_fields
from flowpolicies.shell.hyperparameters import SB3Hyperparameters as Knobs  # noqa: F401


@final
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Data, environment, duration, and where results go."""

    dataset: str | None = None
    """Address of the data: ogbench:NAME, npz:PATH, or what `flowpolicies list datasets` shows, perhaps with options of
    the source, as in hdf5:PATH,max_episode_steps=1000; None: online only, with --env, --steps 0 and --online-steps."""
    data_dir: Path | None = None
    """Folder of the data files, such as `flowpolicies data generate` wrote; None: where the source keeps its own."""
    storage: Storage | None = None
    """ram, or memmap for data laid out as files once and shared by all runs; None: as the source thinks best."""
    cache_dir: Path | None = None
    """Folder for the files of memmap, which need as much room as the data; None: ~/.cache/flowpolicies/memmap."""
    compact: bool = False
    """Keep each state once, instead of as an observation and as a next one: half the memory."""
    rotate_every: int | None = None
    """Gradient steps on one file of a dataset of several before the next one, as in the papers' code (1000); None:
    uniform over all of them at once."""
    frame_stack: int = 1
    """Images that make an observation; the data holds one per row."""
    p_aug: Probability = 0.0
    """Share of batches whose images are moved by up to 3 pixels."""
    env: str | None = None
    """Environment to evaluate and train online in, an address or a Gymnasium id; None: the dataset's, if it has one."""
    reward_transform: RewardTransformName = "none"
    """Change of the rewards to train on, in the data and online, see docs/presets.md; evaluation reports raw ones."""
    steps: NonNegativeInt = 1_000_000
    """Offline gradient steps."""
    online_steps: NonNegativeInt = 0
    """Environment steps of online training afterwards."""
    n_envs: int = 1
    """Environments that online training collects from."""
    seed: NonNegativeInt = 0
    """Of everything."""
    run_dir: Path | None = None
    """Folder of the run; None: runs/ALGORITHM-DATASET-seedSEED."""
    resume: bool = False
    """Continue the run in the folder from its latest checkpoint, or begin it if there is none."""
    overwrite: bool = False
    """Replace the run in the folder."""
    eval_every: NonNegativeInt = 100_000
    """Steps between two evaluations, gradient steps offline and environment steps online; 0: only at the end."""
    eval_episodes: NonNegativeInt = 50
    """Episodes per evaluation; 0: never evaluate."""
    eval_envs: int = 1
    """Environments that an evaluation runs side by side, each in a process of its own if there are several."""
    checkpoint_every: NonNegativeInt = 50_000
    """Steps between two checkpoints; 0: only at the end, or on Ctrl-C."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    save_replay_buffer: bool = True
    """Keep the online transitions with the newest checkpoint; else a resumed online run begins without any."""
    log_every: int = 1000
    """Offline gradient steps between two rows of the log."""
    print_log: bool = False
    """Also print the rows of the log as tables."""
    device: str = "auto"
    """A torch device; auto: CUDA if there is one."""
    compile_backend: str | None = None
    """A torch.compile backend for the whole update, such as inductor; None: eager."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_device(self.device)

    def folder(self, algorithm: str) -> Path:
        """The folder of the run."""
        if self.run_dir is not None:
            return self.run_dir
        address, options = split_options(self.dataset or self.env or "online")
        name = "-".join([Path(address.rpartition(":")[2]).name.removesuffix(".npz"), *map(str, options.values())])
        return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{algorithm}-{name}-seed{self.seed}")
