"""The report as one file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from flowpolicies.files import atomic_write
from flowpolicies.pages.render import render_page
from flowpolicies.report.curves import curves_section, online_section
from flowpolicies.report.gather import Gathered, count, listed
from flowpolicies.report.looking import Looked, actions_section, diagnostics_section
from flowpolicies.report.losses import losses_section
from flowpolicies.report.results import runs_section, summary_section, tasks_section
from flowpolicies.report.settings import configuration_section, provenance_section
from flowpolicies.report.videos import videos_section


def write_report(
    gathered: Gathered,
    path: Path,
    *,
    looked: Sequence[Looked] | None = None,
    videos: Sequence[Path] = (),
    max_video_mb: float = 8.0,
    title: str | None = None,
    command: str = "",
) -> int:
    """Writes the report, atomically, and returns its size in bytes.

    Args:
        gathered: the runs.
        path: HTML file to write.
        looked: what the models with their data show, of `look_at`; None: they were not loaded.
        videos: videos beside those in the run folders.
        max_video_mb: size of all videos together up to which they are put into the page.
        title: title of the page; None: the labels of the runs.
        command: command that writes the report, for its provenance.

    Raises:
        ImportError: if the package that draws charts is not installed.
    """
    sections = [
        summary_section(gathered),
        curves_section(gathered),
        tasks_section(gathered),
        online_section(gathered),
        runs_section(gathered),
        diagnostics_section(gathered, looked),
        actions_section(gathered, looked),
        losses_section(gathered),
        videos_section(gathered, videos, max_video_mb),
        configuration_section(gathered),
        provenance_section(gathered, command),
    ]
    compared = gathered.comparison
    scope = f"{count(len(compared.runs), 'run')} in {count(len(compared.environments), 'task')}"
    lead = f"{scope}, compared by {gathered.unit}. Written on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC."
    page = render_page(title or f"Report: {listed(gathered.labels)}", lead, sections).encode()
    with atomic_write(path) as file:
        file.write(page)
    return len(page)
