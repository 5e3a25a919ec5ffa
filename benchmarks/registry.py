"""Every registered algorithm on Pendulum, beside a uniform random policy: docs/results/registry-pendulum.md.

    python benchmarks/registry.py --seeds 0 1 2 --parallel 2

Makes the data, runs `flowpolicies train` for every algorithm and seed, each on one thread, and writes a CSV, a page and
a picture. A run that is done is not repeated, unless its command has changed; one that crashed is tried again. What
stands in registry-pendulum.notes.toml (`algorithm = "line"`) becomes the column of diagnoses.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from pendulum import ENV, EPISODES_PER_LEVEL, LEVELS, NOISE, REFERENCE_EPISODES, episode_returns, make_data, reference
from registry_runs import (
    ADAPTED,
    ADAPTED_STEPS,
    COMMON,
    ONLINE,
    OWN,
    REWARDS,
    SIZES,
    Result,
    Settings,
    execute,
    make_adapted_run,
    make_run,
    words_of,
)

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.data import TransitionDataset
from flowpolicies.files import atomic_write, csv_text
from flowpolicies.policies.evaluation import Interval, mean_interval
from flowpolicies.training.record import describe_hardware

COLUMNS = ["algorithm", "settings", "seed", "phase", "steps", "episodes", "return", "return_low", "return_high"]


def write_csv(path: Path, results: Sequence[Result], adapted: Sequence[Result]) -> None:
    """A row per run."""
    rows: list[list[object]] = [[*COLUMNS, "seconds", "code"]]
    for kind, group in (("common", results), ("adapted", adapted)):
        for run in (run for result in group for run in result.runs):
            found, record = run.evaluation(), run.read()
            numbers = found and (found.phase, found.step, found.episodes, *found[6:9])
            rows.append([run.algorithm, kind, run.seed, *(numbers or ("",) * 6), round(run.seconds, 1), record["code"]])
    with atomic_write(path) as file:
        file.write(csv_text(rows).encode())


def draw(path: Path, settings: Settings, results: Sequence[Result], references: dict[str, float]) -> None:
    """A dot per seed, a bar at their mean; the best algorithm on top."""
    ranked = sorted(results, key=lambda result: result.mean)
    figure = Figure(figsize=(6.4, 1.2 + 0.2 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    for style, (label, value) in zip(("-", "--", ":"), references.items(), strict=True):
        axes.axvline(value, color="0.35", linewidth=1, linestyle=style, label=f"{label} ({value:.0f})", zorder=1)
    random = ranked[0].random
    axes.axvspan(random.low, random.high, color="0.35", alpha=0.2, linewidth=0)
    for y, result in enumerate(ranked):
        color = "#0072B2" if result.better == len(result.runs) else "#D55E00"
        axes.plot(result.returns, [y] * len(result.returns), "o", color=color, markersize=3.5, alpha=0.8)
        if result.returns:
            axes.plot([result.mean], [y], "|", color=color, markersize=11, markeredgewidth=2)
    axes.set_yticks(range(len(ranked)), [result.algorithm for result in ranked], fontsize=8)
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.set_xlabel(f"Return in {ENV}, {settings.episodes} episodes per seed")
    axes.set_title(f"{settings.steps:,} steps, {len(settings.seeds)} seeds (dots) and their mean (bars)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=200)


PAGE = """\
# Every algorithm on {env}

{count} algorithms, {seed_count} seeds, {steps:,} steps: far from what it takes to compare one with another. The table
says that each one trains from the command line, and that it learns.
**{good} of {count} beat the uniform random policy** in every seed{failed}.{and_adapted}

| | return [95 %] |
|---|---|
| uniform random policy, {reference_episodes} episodes | {random} |
| the data, {data_episodes} episodes | {data} |
| the controller that made them, without noise, {reference_episodes} episodes | {expert} |

{table}

{adapted}
A seed beats the random policy if the 95 % bootstrap interval over its episodes lies above that of the random policy; an
algorithm, if all its seeds do. Each cell is the mean over {episodes} episodes with sampled actions. The interval over
seeds is a bootstrap of so few means, and not to be trusted far. Seconds are processor time of the slowest seed, with
start and evaluation.

![returns](registry-pendulum.png)

All runs: [registry-pendulum.csv](registry-pendulum.csv). Made by `{command}`
at commit `{commit}`, {parallel} runs side by side on one thread each, {minutes:.0f} minutes of processor time, on
{hardware}.

**Data.** {transitions:,} transitions in {data_episodes} episodes of 200 steps. A scripted controller (swing-up by
energy, then position and velocity) acts with Gaussian noise of {noise}; a share of its actions, {levels},
is uniformly random instead, {per_level} episodes of each. Fingerprint `{fingerprint}`.

**Settings.** One per algorithm, not tuned: the defaults, but `{common}`, and
where there is such a field {sizes}.
What has a learning rate of its own by default keeps it: the critics of `cac` and `diffusion_ql` (3e-4), the behaviour
of `qgpo` (1e-4).
Learn online instead, with {steps:,} environment steps, an update after each, and the data in the buffer: {online}.
{own}
The command of each, for the first seed:

```sh
{commands}
```
"""


ADAPTED_TEXT = """
With settings for this task, {steps:,} steps and LayerNorm in the critics where there is such a field, and what the last
column says:

{table}
"""


def adapted_section(settings: Settings, results: Sequence[Result]) -> str:
    """The second table."""
    if not results:
        return ""
    notes = {name: f"`{shlex.join(words_of(own))}`" if own else "" for name, own in ADAPTED.items()}
    table = _table(settings, results, notes, "besides")
    return ADAPTED_TEXT.format(steps=ADAPTED_STEPS, table=table)


def page(
    settings: Settings,
    results: Sequence[Result],
    adapted: Sequence[Result],
    dataset: TransitionDataset,
    expert: Interval,
) -> str:
    """The table, and all that is needed to make it again."""
    names = [result.algorithm for result in results]
    runs = [run for result in (*results, *adapted) for run in result.runs]
    good = [result.algorithm for result in adapted if result.better == len(result.runs)]
    failed = [result.algorithm for result in results if result.better < len(result.runs)]
    own = [f"- `{name}`: `{shlex.join(words_of(OWN[name]))}`" for name in names if name in OWN]
    also = f"\nWith settings for this task {len(good)} of the {len(adapted)} in the second table do."
    returns = episode_returns(dataset)
    hardware = {key: fact for key, fact in describe_hardware().items() if key != "torch_threads"}
    numbers = f"--seeds {' '.join(map(str, settings.seeds))} --steps {settings.steps} --episodes {settings.episodes}"
    return PAGE.format(
        env=ENV,
        count=len(results),
        seed_count=len(settings.seeds),
        good=len(results) - len(failed),
        failed=f"; {', '.join(failed)} did not" if failed else "",
        random=_round(results[0].random),
        data=_round(mean_interval(returns)),
        expert=_round(expert),
        and_adapted=also if adapted else "",
        table=_table(settings, results, _notes(settings), "diagnosis"),
        adapted=adapted_section(settings, adapted),
        command=f"python benchmarks/registry.py {numbers}",
        commit="`, `".join(sorted({run.commit for run in runs if run.is_done()})),
        minutes=sum(run.seconds for run in runs) / 60,
        hardware=", ".join(f"{key} {fact}" for key, fact in hardware.items()),
        data_episodes=len(returns),
        transitions=len(dataset),
        fingerprint=dataset.fingerprint[:12],
        noise=NOISE,
        levels=", ".join(f"{100 * share:.0f}" for share in LEVELS) + " %",
        per_level=EPISODES_PER_LEVEL,
        reference_episodes=REFERENCE_EPISODES,
        common=shlex.join((*COMMON, *REWARDS)),
        sizes=", ".join(f"`{field}` {' '.join(values)}" for field, values in SIZES.items()),
        online=", ".join(f"`{name}`" for name in ONLINE if name in names) or "none of these",
        own="\n".join(["Besides:", "", *own, ""]) if own else "",
        commands="\n".join(f"flowpolicies {shlex.join(result.runs[0].words)}" for result in (*results, *adapted)),
        steps=settings.steps,
        episodes=settings.episodes,
        parallel=settings.parallel,
    )


def _notes(settings: Settings) -> dict[str, str]:
    file = settings.results / "registry-pendulum.notes.toml"
    return tomllib.loads(file.read_text()) if file.is_file() else {}


def _table(settings: Settings, results: Sequence[Result], notes: dict[str, str], title: str) -> str:
    """The best first."""
    seeds = [f"seed {seed}" for seed in settings.seeds]
    header = ["algorithm", *seeds, "mean [95 % over seeds]", "seconds", "beats random", title]
    rows = [result.row(notes.get(result.algorithm, "")) for result in sorted(results, key=lambda r: -r.mean)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _round(interval: Interval) -> str:
    return f"{interval.mean:.0f} [{interval.low:.0f}, {interval.high:.0f}]"


def main(settings: Settings) -> None:
    data = settings.run_dir / "pendulum-mixed.npz"
    dataset = make_data(data)
    random, expert = reference(1.0, 0.0), reference(0.0, 0.0)
    print(
        f"random {_round(random)}, data {episode_returns(dataset).mean():.0f}, controller {_round(expert)}", flush=True
    )
    common = {name: [make_run(settings, name, seed, data) for seed in settings.seeds] for name in sorted(ALGORITHMS)}
    adapted = {name: [make_adapted_run(settings, name, seed, data) for seed in settings.seeds] for name in ADAPTED}
    chosen = settings.algorithms or tuple(common)
    todo = [
        runs[name][i]
        for runs in (common, adapted)
        for i in range(len(settings.seeds))
        for name in chosen
        if name in runs
    ]
    with ThreadPoolExecutor(settings.parallel) as pool:
        try:
            list(pool.map(execute, todo))
        finally:
            pool.shutdown(cancel_futures=True)  # After Ctrl-C, or a fault of ours, what waits is not begun.
    results, others = (
        [Result(algorithm=name, runs=own, random=random) for name, own in runs.items() if all(r.has_run() for r in own)]
        for runs in (common, adapted)
    )
    settings.results.mkdir(parents=True, exist_ok=True)
    stem = settings.results / "registry-pendulum"
    write_csv(stem.with_suffix(".csv"), results, others)
    references = {"random": random.mean, "data": float(episode_returns(dataset).mean()), "controller": expert.mean}
    draw(stem.with_suffix(".png"), settings, results, references)
    stem.with_suffix(".md").write_text(page(settings, results, others, dataset, expert))
    print(f"wrote {stem}.md")


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.FlagCreatePairsOff,)))
