"""`flowpolicies report`: everything about runs in one HTML file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, final

import tyro

from flowpolicies.cli.command import Command
from flowpolicies.messages import say
from flowpolicies.shell.fields import NonNegativeInt

if TYPE_CHECKING:
    from flowpolicies.report.gather import Gathered
    from flowpolicies.report.looking import Looked


@final
@dataclass(frozen=True, kw_only=True)
class ReportRuns(Command):
    """Write a report about runs: one HTML file with scores, curves, diagnostics, videos, settings and provenance.

    The file loads nothing from elsewhere, so it can be sent by mail. It needs `pip install 'flowpolicies[report]'`.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies report runs/ --out report.html",
        "flowpolicies report runs/fql-* wide=runs/qflow-wide --baseline fql --diagnose",
        "flowpolicies report results.jsonl --videos episode.mp4",
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, folders of runs, and results files of `flowpolicies evaluate --out`. Runs of one algorithm form a
    group; LABEL=PATH puts a run or all runs of a folder in a group of its own."""
    out: Path = Path("report.html")
    """HTML file to write."""
    title: str | None = None
    """Title of the page. None: the labels of the runs."""
    baseline: str | None = None
    """Label that the others are compared with by their probability of improvement. None: that of the first run."""
    metric: Literal["success", "score", "return"] | None = None
    """Quantity to compare: success in percent, D4RL's normalised score, or the return.
    None: the first of score, success and return that all runs have."""
    last: int = 1
    """Number of last evaluations of a run that are averaged, for run folders."""
    diagnose: bool = False
    """Load the newest model and the dataset of each run, for diagnostics and for samples of actions. It takes a minute
    for each run, and downloads datasets that are not here. Otherwise the report has the diagnostics of the log."""
    episodes: NonNegativeInt = 0
    """Number of episodes of each policy for --diagnose, whose returns are compared with values. 0: none, which is
    faster."""
    data_dir: Path | None = None
    """Folder of the datasets' files, for --diagnose. None: that of each run."""
    videos: tuple[Path, ...] = ()
    """Videos to show (.mp4, .webm or .gif) beside those that are in the run folders."""
    max_video_mb: float = 8.0
    """Size in megabytes, of all videos together, up to which they are put into the file. The others are named."""
    device: str = "auto"
    """Torch device for --diagnose, such as cpu or cuda:1. auto: CUDA if it is available."""

    def run(self, words: Sequence[str]) -> None:
        """Reads the runs, writes the report, and prints where it is."""
        if self.out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"'{self.out}': name the report with the ending .html.")
        from flowpolicies.report.videos import check_videos

        check_videos(self.videos)
        from flowpolicies.report.gather import gather

        gathered = gather(self.runs, metric=self.metric, baseline=self.baseline, last=self.last)
        from flowpolicies.pages.vega import check_vega

        check_vega()
        from flowpolicies.report.write import write_report

        size = write_report(
            gathered,
            self.out,
            looked=self._look(gathered) if self.diagnose else None,
            videos=self.videos,
            max_video_mb=self.max_video_mb,
            title=self.title,
            command=shlex.join(["flowpolicies", *words]),
        )
        print(f"Wrote '{self.out}' ({size / 1e6:.1f} MB). Open it in a browser.")

    def _look(self, gathered: Gathered) -> list[Looked]:
        """What the models with their data show; results files have none."""
        from flowpolicies.report.looking import look_at

        found = []
        for run in gathered.runs:
            if run.path in gathered.records:
                say(f"Looking at the model of '{run.path}' ...")
                one = look_at(run, episodes=self.episodes, data_dir=self.data_dir, device=self.device)
                found.append(one)
                if one.problem:
                    say(f"note: '{run.path}': {one.problem}")
        return found
