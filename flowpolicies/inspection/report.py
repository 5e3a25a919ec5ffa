"""Reports of an inspection: text for a terminal, and one HTML page that contains its drawings."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from flowpolicies.inspection import Finding, Histogram, Inspection
from flowpolicies.inspection.findings import Severity
from flowpolicies.pages.blocks import DrawingBlock, Level, NoticeBlock, PageBlock, PageCell, Section, TableBlock
from flowpolicies.pages.render import render_page

BAR, INK = "#3b82b8", "#010203"
"""Color of bars, which can be seen on light and dark pages, and that of what takes the color of the page's text."""
WIDTH = 100
"""Characters in a line of the text report."""

LEVELS: Mapping[Severity, Level] = {"fault": "bad", "warning": "look", "info": "info", "not judged": "info"}
"""Severity of a finding -> how urgent it is on a page."""


def verdict(inspection: Inspection) -> str:
    """The number of faults and warnings, as one line."""
    counts = {kind: sum(f.severity == kind for f in inspection.findings) for kind in ("fault", "warning")}
    return f"{_number(counts['fault'], 'fault')}, {_number(counts['warning'], 'warning')}"


def to_text(inspection: Inspection) -> str:
    """The report as text for a terminal."""
    width = max(map(len, inspection.facts), default=0)
    lines = [inspection.name, *(f"  {title:<{width}}  {fact}" for title, fact in inspection.facts.items())]
    for finding in inspection.findings:
        head = f"{finding.severity.upper()} [{finding.check}] {sentence(finding.message)}"
        lines += ["", *_wrap(head, "")]
        for text in (_place(finding), finding.advice):
            lines += _wrap(text, "  ")
    lines += [""] if inspection.not_judged else []
    for finding in inspection.not_judged:
        lines += _wrap(f"not judged: {finding.check}: {sentence(finding.message)}", "")
    return "\n".join([*lines, "", verdict(inspection)])


def to_html(inspection: Inspection) -> str:
    """The report as an HTML page, with the histograms as inline SVG drawings."""
    findings: list[PageBlock] = [_notice(finding) for finding in inspection.findings]
    unjudged = [PageCell(finding.check) for finding in inspection.not_judged]
    reasons = [PageCell(sentence(finding.message)) for finding in inspection.not_judged]
    sections = [Section(title="Findings", sentence=f"The checks found {verdict(inspection)}.", blocks=findings)]
    if unjudged:
        table = TableBlock("Checks that could not be made", ("check", "why"), [*zip(unjudged, reasons, strict=True)])
        seen = "These checks could not be made; they say nothing about the data."
        sections.append(Section(title="Not judged", sentence=seen, blocks=[table]))
    if inspection.facts:
        rows = [[PageCell(title), PageCell(fact)] for title, fact in inspection.facts.items()]
        seen = "What is in the dataset."
        sections.append(
            Section(title="Facts", sentence=seen, blocks=[TableBlock("Facts of the dataset", ("fact", "value"), rows)])
        )
    if inspection.histograms:
        drawings = [DrawingBlock(draw_histogram(histogram)) for histogram in inspection.histograms]
        seen = "How often values occur; counts are on a logarithmic scale, so that one bad row in a million is visible."
        sections.append(Section(title="Histograms", sentence=seen, blocks=drawings))
    return render_page(f"{inspection.name}: data check", verdict(inspection), sections)


def _wrap(text: str, indent: str) -> list[str]:
    """The lines of a text; names and paths are not broken."""
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent=indent, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def sentence(text: str) -> str:
    """The text with a full stop at its end, unless it has one."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def draw_histogram(histogram: Histogram) -> str:
    """An SVG drawing of a histogram, in the color of the text around it.

    Counts are on a logarithmic scale, so that one bad row in a million is visible.
    """
    with io.StringIO() as file, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": histogram.title}):
        _figure_of(histogram).savefig(file, format="svg", metadata={"Date": None}, transparent=True)
        drawing = file.getvalue()
    return drawing[drawing.index("<svg") :].replace(INK, "currentColor")


def _figure_of(histogram: Histogram) -> Figure:
    title = textwrap.wrap(histogram.title, 34)
    figure = Figure(figsize=(3.2, 2.3))
    FigureCanvasSVG(figure)
    ax = figure.add_axes((0.17, 0.13, 0.8, 0.84 - 0.09 * len(title)))
    ax.stairs(histogram.counts, histogram.edges, fill=True, color=BAR)
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(bottom=0)
    ax.set_title("\n".join(title), fontsize=11, parse_math=False, color=INK)
    ax.tick_params(which="both", labelsize=10, color=INK, labelcolor=INK)
    is_whole = bool(np.all(histogram.edges % 1 == 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=is_whole, min_n_ticks=1 if is_whole else 2))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.6g}"))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["bottom", "left"]].set_color(INK)
    return figure


def _notice(finding: Finding) -> NoticeBlock:
    head = f"{finding.severity.capitalize()} ({finding.check}): {sentence(finding.message)}"
    return NoticeBlock(LEVELS[finding.severity], head, [text for text in (_place(finding), finding.advice) if text])


def _place(finding: Finding) -> str:
    if finding.row is None:
        return ""
    return f"First in row {finding.row:,} (trajectory {finding.episode:,}, step {finding.step:,})."


def _number(count: int, thing: str) -> str:
    return f"{count or 'no'} {thing}{'' if count == 1 else 's'}"
