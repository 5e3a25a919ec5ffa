"""`flowpolicies train ALGORITHM`: one command for each algorithm, with the fields of its `Config` as flags.

With `--preset`, published values become the defaults of the flags. Flags on the command line override the preset, and
the preset overrides the defaults of the algorithm.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import tyro
from rich.console import Console
from rich.table import Table

from flowpolicies import algorithms, training
from flowpolicies.choices import choice_of_backend
from flowpolicies.cli.command import Command
from flowpolicies.cli.config import ConfigFile, read_config_file
from flowpolicies.data.addresses import split_options
from flowpolicies.reproduction.preset_files import Preset
from flowpolicies.reproduction.presets import AUTO, check_same_environment, find_preset, load_preset
from flowpolicies.shell.catalog import REGISTRY, catalog, config_of, name_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.settings import TrainSettings, check_start

EXAMPLES = (
    "flowpolicies train {name} --dataset ogbench:cube-single-play-singletask-v0",
    "flowpolicies train {name} --dataset npz:data.npz --env Pendulum-v1 --steps 20000 --actor-hidden-dims 128 128",
)


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Abstract base of the commands of all algorithms."""

    algorithm: ClassVar[str]
    """Name of the algorithm."""
    published: ClassVar[Preset | None]
    """Preset whose values are the defaults of the flags."""
    file: ClassVar[ConfigFile | None]
    """File of --config, whose values override those of the preset."""
    hyperparameters: ClassVar[Any]
    """Hyperparameters of the algorithm; a field of the class that `train_command` makes."""

    settings: tyro.conf.OmitArgPrefixes[TrainSettings]
    sb3_hyperparameters: tyro.conf.OmitArgPrefixes[SB3Hyperparameters]
    preset: str | None = None
    """Published settings: SUITE/ENVIRONMENT of `flowpolicies list presets`, with -task1 to -task5 for one of its tasks.
    auto: the preset that fits --dataset or --env.
    Flags on the command line override the preset."""

    config: Path | None = None
    """TOML file with values of these flags, such as the run.toml of a run; flags on the command line override it.
    With it, the name of the algorithm may be left out: flowpolicies train --config RUN/run.toml."""

    seeds: tuple[int, ...] = ()
    """Seeds that are trained together, each in a folder of its own in --run-dir, as in --seeds 0 1 2 3.
    Default: one run, with --seed."""
    sweep: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """A hyperparameter that is a number, and its values, which are trained together with every seed, as in
    --sweep alpha 1 3 10. It can be given again for another hyperparameter."""

    def run(self, words: Sequence[str]) -> None:
        """Trains the algorithm, and prints where the run is."""
        if self.file is not None:
            print(f"settings: {self.file.path}")
        if self.published is not None:
            self._explain(self.published, words)
        if self.seeds or self.sweep:
            self._train_together(words)
            return
        check_start(self.algorithm, self.settings)  # What is wrong is reported before torch is imported.
        algorithm = algorithms.get_algorithm(self.algorithm)
        folder = training.train(
            algorithm,
            algorithm.Config(**vars(self.hyperparameters)),
            self.settings,
            self.sb3_hyperparameters,
            preset=self.published.describe() if self.published else None,
            command=("flowpolicies", *words),
        )
        rows = folder.read_evaluations()
        print(f"Done. The run is in '{folder.path}': {', '.join(sorted(path.name for path in folder.path.iterdir()))}.")
        if rows:
            print(f"Evaluate it with: flowpolicies evaluate {folder.path}")

    def _train_together(self, words: Sequence[str]) -> None:
        """Trains several seeds and values, and prints where the runs are."""
        sweep = parse_sweep(self.sweep)
        both = [name for name in ("seed" if self.seeds else "", *sweep) if name and is_given(name, words)]
        if both:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in both)
            raise ValueError(f"{flags}: given by itself, and by --seeds or --sweep. Leave one of them out.")
        self.settings.check_inputs()  # What is wrong is reported before torch is imported.
        algorithm = algorithms.get_algorithm(self.algorithm)
        folders = training.train_together(
            algorithm,
            algorithm.Config(**vars(self.hyperparameters)),
            self.settings,
            self.sb3_hyperparameters,
            seeds=self.seeds or (self.settings.seed,),
            sweep=sweep,
            preset=self.published.describe() if self.published else None,
            command=("flowpolicies", *words),
        )
        print(f"Done. The {len(folders)} runs are in:")
        for folder in folders:
            print(f"  {folder.path}")

    def _explain(self, preset: Preset, words: Sequence[str]) -> None:
        """Prints every setting with its origin, and the sources, notes and gaps of the preset."""
        print(f"{preset.algorithm} with preset {preset.name}:")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("field", "value", "from"):
            table.add_column(column, overflow="fold")
        for name, value, origin in self.origins(preset, words):
            table.add_row(name, str(value), origin, style=None if origin != "default" else "dim")
        Console(highlight=False, markup=False).print(table)
        for source in preset.sources:
            print(f"source: {source}")
        for note in preset.notes:
            print(f"note: {note}")
        for name, value in preset.unsupported.items():
            print(f"warning: the published runs also have {name} = {value}, which flowpolicies does not have yet.")
        if self.settings.dataset == preset.dataset and "-100m-" in preset.dataset:
            smaller = preset.dataset.replace("-100m-", "-")
            print(f"note: this is one of OGBench's 100M datasets; for the standard dataset pass --dataset {smaller}")

    def origins(self, preset: Preset, words: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
        """Every field with its value and the origin of the value."""
        for part in (self.hyperparameters, self.sb3_hyperparameters, self.settings):
            for spec in dataclasses.fields(part):
                if is_given(spec.name, words):
                    origin = "command line"
                elif self.file is not None and spec.name in self.file.values:
                    origin = self.file.path.name
                else:
                    origin = "preset" if spec.name in preset.values else "default"
                yield spec.name, getattr(part, spec.name), origin


def parse_sweep(sweep: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """Hyperparameters and their values, from the words of each --sweep.

    Raises:
        ValueError: if a hyperparameter is given twice or has no values, or a value is not a number.
    """
    found: dict[str, list[float]] = {}
    if not all(sweep):
        raise ValueError("--sweep: give a hyperparameter, and its values behind it, as in --sweep alpha 0.5 1 2.")
    for flag, *values in sweep:
        name = flag.removeprefix("--").replace("-", "_")
        if name in found or not values:
            raise ValueError(
                f"--sweep {flag}: give a hyperparameter once, with its values behind it, as in --sweep {flag} 0.5 1 2."
            )
        try:
            found[name] = [float(value) for value in values]
        except ValueError:
            raise ValueError(f"--sweep {flag} takes numbers, got {' '.join(values)}") from None
    return found


def parse_train(words: Sequence[str]) -> Train:
    """Parses `flowpolicies train ALGORITHM ...`; tyro prints help and errors, and exits.

    Raises:
        ValueError: for an unknown algorithm, or a preset for another environment than that of the command line.
    """
    algorithm = name_of(words[1])
    words = _current_flags(config_of(algorithm).renamed, words)
    file = None if (path := value_of("config", words)) is None else read_config_file(Path(path))
    if file is not None and file.algorithm not in (None, algorithm):
        raise ValueError(f"'{path}' is for {file.algorithm}, not for {algorithm}. Train {file.algorithm} with it.")
    command: Any = train_command(algorithm, choose_preset(algorithm, words, file), file)
    # A preset may change the default of a switch, so every `train` accepts both --x and --no-x.
    parsed: Train = tyro.cli(command, args=list(words[2:]), prog=f"flowpolicies train {words[1]}", config=())
    return parsed


def _current_flags(renamed: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """The words of a command line, with flags of renamed hyperparameters and settings replaced by the present ones."""
    flags = {f"--{old.replace('_', '-')}": f"--{new.replace('_', '-')}" for old, new in renamed.items()}
    flags["--compile-backend"] = "--compile"
    current: list[str] = []
    last = ""
    for word in words:
        flag, equals, value = word.partition("=")
        was_backend, last = last == "--compile-backend", flag.replace("_", "-")
        new = flags.get(last)
        if new is not None:
            print(f"{flag} is now {new}; the old flag works until 1.0.", file=sys.stderr)
            value = str(choice_of_backend(value)) if value and last == "--compile-backend" else value
            current.append(f"{new}{equals}{value}")
        else:
            current.append(str(choice_of_backend(word)) if was_backend else word)
    return current


def train_command(algorithm: str, preset: Preset | None = None, file: ConfigFile | None = None) -> type[Command]:
    """Makes the command of an algorithm, with the values of a preset and of a file as defaults of its flags."""
    defaults = preset if file is None else file.as_preset(algorithm, preset)
    config = config_of(algorithm)
    namespace = {
        "algorithm": algorithm,
        "published": preset,
        "file": file,
        "examples": tuple(example.format(name=algorithm) for example in EXAMPLES),
        "__doc__": catalog()[algorithm].doc if algorithm in catalog() else REGISTRY.find(algorithm).__doc__,
    }
    flat: Any = tyro.conf.OmitArgPrefixes  # Type checkers do not know types that are made at run time.
    parts = {"hyperparameters": config, "settings": TrainSettings, "sb3_hyperparameters": SB3Hyperparameters}
    fields: list[Any] = [("hyperparameters", flat[config])]
    if defaults is not None:
        fields = [(name, flat[kind], field(default=kind(**defaults.fields_of(kind)))) for name, kind in parts.items()]
    return make_dataclass(
        f"Train{config.__name__.removesuffix('Config')}",
        fields,
        bases=(Train,),
        namespace=namespace,
        frozen=True,
        kw_only=True,
    )


def choose_preset(algorithm: str, words: Sequence[str], file: ConfigFile | None = None) -> Preset | None:
    """The preset that a command line, or else the file of --config, names, found before the other flags are parsed.

    Raises:
        ValueError: if there is no such preset, or if it is for another environment than that of the command line.
    """
    written = {} if file is None else file.values
    name = value_of("preset", words) or (None if file is None else file.preset)
    flags = (value_of(flag, words) or written.get(flag) for flag in ("dataset", "env"))
    given = [split_options(address)[0] for address in flags if address is not None]
    if name is None:
        return None
    if name == AUTO:
        preset = find_preset(algorithm, given)
        print(f"--preset auto: {preset.name}")
    else:
        preset = load_preset(algorithm, name, given)
    for address in given:
        check_same_environment(preset, address)
    return preset


def value_of(name: str, words: Sequence[str]) -> str | None:
    """The last value of a flag on a command line; None if the flag is not given."""
    flag, found = f"--{name}", None
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def is_given(name: str, words: Sequence[str]) -> bool:
    """Whether a command line has the flag of a field."""
    flag = name.replace("_", "-")
    given = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    return bool(given & {f"--{flag}", f"--no-{flag}"})
