"""Settings of the 2D experiments, which the help of the command line shows, and the models that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from flowpolicies.shell.fields import NonNegativeInt, check_fields

Dataset = Literal["swissroll", "two_spirals", "eight_gaussians", "moons", "all"]
"""Name of a dataset on the command line."""

NAMES = ("swissroll", "two_spirals", "eight_gaussians", "moons")
"""Names of the datasets."""


class Size(NamedTuple):
    """How large networks, batches and trainings are."""

    width: int
    """Units in each hidden layer of the policy; critics have as many, and in published size half of them."""
    batch_size: int
    """Number of points in each update."""
    flow_steps: int
    """Number of Euler steps from noise to action."""
    pretraining: int
    """Number of updates of behaviour cloning, in which critics learn too."""
    updates: int
    """Number of updates with the whole loss, for each coefficient."""


REDUCED = Size(width=128, batch_size=256, flow_steps=10, pretraining=5000, updates=500)
"""Size unless it is changed: minutes for each dataset and method on one core."""
PUBLISHED = Size(width=512, batch_size=4096, flow_steps=25, pretraining=6000, updates=300)
"""Size of the paper. Its 2,000 and 100 epochs are of three batches each."""
PUBLISHED_PRETRAINING = {"two_spirals": 15_000}
"""Number of updates of behaviour cloning where the paper has another one: 5,000 epochs."""


@final
@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """Settings of the 2D experiments; docs/guides/toy.md explains the choice of the numbers."""

    dataset: Dataset = "swissroll"
    """Dataset of 10,000 points with rewards in the box [-4, 4]^2. all: each of the four."""
    methods: tuple[str, ...] = ("qflow", "fql", "fbrac")
    """Names of the algorithms, as in `flowpolicies list`."""
    coefficients: tuple[float, ...] = (0.3, 0.5, 1.0, 5.0)
    """Values of the coefficient that weighs data against values, such as lambda of Q-Flow and alpha of FQL, in the
    units of the box. Without a value after the flag, each algorithm has its default hyperparameters."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds of the trainings; the points are the same for all of them."""
    full: bool = False
    """Train in the size of the paper, which takes minutes for each coefficient on a GPU, and hours on a processor."""
    width: int | None = None
    """Units in each hidden layer of the policy. None: 128, and 512 in full size."""
    batch_size: int | None = None
    """Number of points in each update. None: 256, and 4,096 in full size."""
    flow_steps: int | None = None
    """Number of Euler steps from noise to action. None: 10, and 25 in full size."""
    pretraining: int | None = None
    """Number of updates of behaviour cloning, while critics learn too, which the coefficients of a method share.
    None: 5,000; in full size 6,000, and 15,000 for two_spirals."""
    updates: int | None = None
    """Number of updates with the whole loss for each coefficient. None: 500, and 300 in full size."""
    workers: int = 1
    """Number of trainings that run side by side, each on one thread: one for each dataset, method and seed."""
    device: str = "cpu"
    """Torch device of the trainings, such as cpu or cuda. Networks of the reduced size are fastest on a processor."""
    run_dir: Path = Path("runs/toy")
    """Folder of the trainings, the figures and the table."""
    only_draw: bool = False
    """Draw the figures and write the table of what the folder holds, without training what is missing."""
    only_train: bool = False
    """Train what is missing, without figures and a table."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("methods", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"--{name} needs at least one value, and each value once; got {values}.")
        if self.only_draw and self.only_train:
            raise ValueError("--only-draw and --only-train exclude each other. Leave out one of them.")
        if wrong := [one for one in self.coefficients if not one > 0]:
            raise ValueError(f"--coefficients must be greater than 0, got {wrong[0]:g}.")
        if len(set(self.coefficients)) < len(self.coefficients):
            raise ValueError(f"--coefficients has a value twice: {self.coefficients}.")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets."""
        return NAMES if self.dataset == "all" else (self.dataset,)

    def size(self, dataset: str) -> Size:
        """Sizes for a dataset."""
        size = PUBLISHED if self.full else REDUCED
        if self.full:
            size = size._replace(pretraining=PUBLISHED_PRETRAINING.get(dataset, size.pretraining))
        given = {name: getattr(self, name) for name in Size._fields}
        return size._replace(**{name: value for name, value in given.items() if value is not None})

    def recorded(self) -> dict[str, Any]:
        """What must be the same for trainings in one folder, as JSON data."""
        return {"full": self.full, "sizes": {name: self.size(name)._asdict() for name in NAMES}}


Coefficient = float | Literal["cloning", "default"]
"""Value of a coefficient; or cloning: without any weight of values; or default: with the default hyperparameters."""


def text_of(coefficient: Coefficient) -> str:
    """A coefficient in names and tables."""
    return coefficient if isinstance(coefficient, str) else f"{coefficient:g}"


class ToyCell(NamedTuple):
    """One training: a dataset, a method, a coefficient and a seed."""

    dataset: str
    method: str
    coefficient: Coefficient
    """Value of the coefficient, or another kind of training."""
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.dataset}-{self.method}-{text_of(self.coefficient)}-seed{self.seed}"

    @property
    def start(self) -> ToyCell | None:
        """The training that this one continues, if there is one."""
        return None if isinstance(self.coefficient, str) else self._replace(coefficient="cloning")


class Chain(NamedTuple):
    """Trainings that one process makes: the start of a method, and what continues it with each coefficient."""

    dataset: str
    method: str
    seed: int
    coefficients: tuple[float, ...]

    @property
    def name(self) -> str:
        """Name for progress and logs."""
        return f"{self.dataset}-{self.method}-seed{self.seed}"

    @property
    def cells(self) -> list[ToyCell]:
        """Behaviour cloning and the others in the order of their coefficients; or one with default hyperparameters."""
        kinds: list[Coefficient] = ["cloning", *self.coefficients] if self.coefficients else ["default"]
        return [ToyCell(self.dataset, self.method, kind, self.seed) for kind in kinds]


def chains(settings: ToySettings) -> list[Chain]:
    """All trainings, grouped by the process that makes them."""
    return [
        Chain(dataset, method, seed, tuple(sorted(settings.coefficients)))
        for dataset in settings.datasets
        for seed in settings.seeds
        for method in settings.methods
    ]


def work_of(cell: ToyCell, settings: ToySettings) -> int:
    """Number of updates of a training."""
    size = settings.size(cell.dataset)
    both = size.pretraining + size.updates
    return {"cloning": size.pretraining, "default": both}.get(text_of(cell.coefficient), size.updates)


def words_of(chain: Chain, settings: ToySettings) -> tuple[str, ...]:
    """The command line of a process that makes the trainings of a chain."""
    from flowpolicies.reproduction.jobs import flags

    given: Mapping[str, Any] = {name: getattr(settings, name) for name in (*Size._fields, "device", "run_dir")}
    values: dict[str, Any] = {"dataset": chain.dataset, "methods": (chain.method,), "seeds": (chain.seed,)}
    values |= {"coefficients": chain.coefficients}
    values |= {name: value for name, value in given.items() if value is not None}
    switches: Sequence[str] = ["--full"] if settings.full else []
    return ("toy", *flags(values), *switches, "--only-train")
