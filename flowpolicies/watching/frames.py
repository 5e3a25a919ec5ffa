"""Pictures of the status of runs for a terminal: one run with its curves, or a table of several runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowpolicies.messages import duration
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.watching.status import Curve, PhaseProgress, RunState, RunStatus, score

COLORS: Mapping[RunState, str] = {
    "not begun": "dim",
    "starting": "cyan",
    "running": "cyan",
    "finished": "green",
    "stopped": "yellow",
    "failed": "red",
    "killed": "red",
}
BLOCKS, ASCII = "▁▂▃▄▅▆▇█│", "_.:-=+*#|"
"""Eight heights of a sparkline, and the line between the phases: for terminals with Unicode, and for others."""
WIDTH = 40
"""Most characters of a sparkline."""


def picture(statuses: Mapping[str, RunStatus], console: Console) -> RenderableType:
    """A panel for one run, or a table for several.

    Args:
        statuses: name of each run -> its status.
        console: where it is shown, which limits width and characters.
    """
    if len(statuses) == 1:
        ((name, status),) = statuses.items()
        return _panel(name, status, console)
    return _table(statuses, console)


def sparkline(curve: Curve, width: int, *, unicode: bool = True, low: float = math.nan, high: float = math.nan) -> str:
    """A number over the steps as one line of text, with a bar between the phases.

    Args:
        curve: the number. Values that are not finite are shown as "!".
        width: most characters; longer curves are averaged over intervals of equal length.
        unicode: draw with block characters.
        low, high: the values of the lowest and the highest character; nan: those of the curve.
    """
    signs = BLOCKS if unicode else ASCII
    finite = [value for value in curve.values if math.isfinite(value)]
    low = min(finite, default=0.0) if math.isnan(low) else low
    high = max(finite, default=0.0) if math.isnan(high) else high
    size = math.ceil(len(curve.values) / max(1, width - 2))
    parts = []
    for values in (curve.values[: curve.switch], curve.values[curve.switch :]):
        means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), max(1, size))]
        parts.append("".join(_sign(mean, low, high, signs) for mean in means))
    return signs[8].join(part for part in parts if part)


def _sign(value: float, low: float, high: float, signs: str) -> str:
    if not math.isfinite(value):
        return "!"
    return signs[min(7, max(0, int(8 * (value - low) / (high - low))))] if high > low else signs[3]


def plain(text: object) -> str:
    """Text from a file, without characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def title(status: RunStatus) -> str:
    """What is trained, on what, and with which seed."""
    record = status.record
    if not record:
        return "no run yet"
    where = record.get("env") or record.get("dataset", {}).get("address")
    return plain(f"{record.get('algorithm')} on {where}, seed {record.get('seed')}")


def _panel(name: str, status: RunStatus, console: Console) -> Panel:
    unicode, width = console.encoding.startswith("utf"), min(WIDTH, max(8, console.width - 50))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", overflow="fold")
    grid.add_column(overflow="fold")
    color, reason = COLORS[status.state], f", {plain(status.reason)}" if status.reason else ""
    grid.add_row("state", Text.assemble((status.state, f"bold {color}"), reason))
    for phase in status.phases:
        grid.add_row(phase.phase, _bar(phase, status))
    for label, row in {"last": next(reversed(status.evaluations), None), "best": status.best}.items():
        if row is not None:
            grid.add_row(f"{label} evaluation", evaluated(row))
    for label, line in _lines(status, width, unicode=unicode):
        grid.add_row(label, line)
    if status.checkpoint is not None:
        grid.add_row("checkpoint", plain(status.checkpoint))
    for warning in status.warnings:
        grid.add_row(Text("warning", style="bold yellow"), plain(warning))
    return Panel(grid, title=Text(title(status)), subtitle=Text(plain(name)), border_style=color, title_align="left")


def _bar(phase: PhaseProgress, status: RunStatus) -> RenderableType:
    words = [f"{phase.done:,} of {phase.asked:,} steps"]
    if phase.pace:
        words.append(f"{phase.pace:,.3g} steps/s")
    if phase == status.current:
        words += [] if status.seconds_left is None else [f"about {duration(status.seconds_left)} left"]
        if status.state == "running" and status.logged is not None:
            words.append(f"logged {duration(status.logged)} ago")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=phase.asked, completed=phase.done, width=20), ", ".join(words))
    return grid


def evaluated(row: EvaluationRow) -> str:
    """An evaluation in words."""
    found = f"return {row.mean_return:.4g}"
    if not math.isnan(row.success):
        low, high = (f"{100 * end:.0f}" for end in (row.low, row.high))
        found = f"success {100 * row.success:.0f} % [{low}, {high}], {found}"
    return f"{found} ({row.phase} step {row.step:,}, {row.episodes} episode{'s' * (row.episodes != 1)})"


def _lines(status: RunStatus, width: int, *, unicode: bool) -> Iterator[tuple[str, str]]:
    """Label and sparkline of evaluations, of episodes while collecting, and of losses."""
    rows = status.evaluations
    switch = sum(row.phase == "offline" for row in rows)
    if len(rows) > 1:
        successes = [row.success for row in rows]
        if not any(map(math.isnan, successes)):
            line = sparkline(Curve(successes, switch), width, unicode=unicode, low=0.0, high=1.0)
            yield "success", f"{line}  0 to 100 %"
        yield _labelled("return", Curve([row.mean_return for row in rows], switch), width, unicode=unicode)
    for name, curve in status.curves.items():
        if len(curve.values) > 1 and (name.endswith("loss") or name == "rollout/ep_rew_mean"):
            label = "return, collecting" if name.startswith("rollout/") else plain(name.removeprefix("train/"))
            yield _labelled(label, curve, width, unicode=unicode)


def _labelled(label: str, curve: Curve, width: int, *, unicode: bool) -> tuple[str, str]:
    ends = f"{curve.values[0]:.4g} to {curve.values[-1]:.4g}"
    return label, f"{sparkline(curve, width, unicode=unicode)}  {ends}"


def _table(statuses: Mapping[str, RunStatus], console: Console) -> Group:
    table = Table(title=f"{len(statuses)} runs: {_counts(list(statuses.values()))}", title_justify="left")
    table.add_column("run", overflow="fold")
    for column in ("state", "steps", "left", "evaluations", "last", "best"):
        justify: JustifyMethod = "left" if column in ("state", "evaluations") else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == "state")
    warnings = []
    for name, status in statuses.items():
        table.add_row(plain(name), *_cells(status, unicode=console.encoding.startswith("utf")))
        warnings += [Text(f"{plain(name)}: {plain(warning)}", style="yellow") for warning in status.warnings]
    return Group(table, *warnings)


def _counts(statuses: Sequence[RunStatus]) -> str:
    states = [status.state for status in statuses]
    return ", ".join(f"{states.count(state)} {state}" for state in COLORS if state in states)


def _cells(status: RunStatus, *, unicode: bool) -> list[str | Text]:
    """The cells of a run in the table of several runs."""
    current, rows = status.current, status.evaluations
    steps = "-" if current is None else f"{current.phase} {current.done:,}/{current.asked:,}"
    left = "-" if status.seconds_left is None else duration(status.seconds_left)
    curve = Curve([score(row) for row in rows], sum(row.phase == "offline" for row in rows))
    low, high = (math.nan, math.nan) if any(math.isnan(row.success) for row in rows) else (0.0, 1.0)
    line = sparkline(curve, 12, unicode=unicode, low=low, high=high) or "-"
    scores = [_score(rows[-1]), _score(status.best)] if rows and status.best is not None else ["-", "-"]
    state = Text(status.state, style=COLORS[status.state])
    return [state, steps, left, line, *scores]


def _score(row: EvaluationRow) -> str:
    return f"{row.mean_return:.4g}" if math.isnan(row.success) else f"{100 * row.success:.0f} %"
