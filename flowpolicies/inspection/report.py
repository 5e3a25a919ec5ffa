"""Reports of an inspection: text for a terminal, and one HTML page that contains its drawings."""

from __future__ import annotations

import html
import io
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from flowpolicies.inspection import Finding, Histogram, Inspection

COLUMNS = 4
"""Number of histograms side by side."""

WIDTH = 100
"""Characters in a line of the text report."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; }
th, td { padding: 0.25rem 1.5rem 0.25rem 0; vertical-align: top; }
.finding { border-left: 4px solid; padding: 0.1rem 0 0.1rem 0.8rem; margin: 0.8rem 0; }
.unmade { color: #555; } .unmade p { margin: 0.2rem 0; } .finding p { margin: 0.2rem 0; } .place { color: #666; }
.fault { border-color: #b3261e; } .warning { border-color: #b26a00; } .info { border-color: #5f7d95; }
.fault b { color: #b3261e; } .warning b { color: #8a5200; } .info b { color: #3f5a6e; }
svg { width: 100%; height: auto; }
"""


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
    """The report as an HTML page, with the histograms as an inline SVG drawing."""
    title = html.escape(inspection.name)
    facts = "\n".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(fact)}</td></tr>" for key, fact in inspection.facts.items()
    )
    findings = "\n".join(_to_html(finding) for finding in inspection.findings)
    unmade = "\n".join(
        f"<p>not judged: {html.escape(finding.check)}: {html.escape(sentence(finding.message))}</p>"
        for finding in inspection.not_judged
    )
    drawing = (
        f"<h2>Histograms</h2>\n<p>Counts are on a logarithmic scale.</p>\n{draw_histograms(inspection.histograms)}"
        if inspection.histograms
        else ""
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}: data check</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{title}</h1>\n<p>{verdict(inspection)}</p>\n{findings}\n"
        + (f'<h2>Not judged</h2>\n<div class="unmade">\n{unmade}\n</div>\n' if unmade else "")
        + (f"<h2>Facts</h2>\n<table>\n{facts}\n</table>\n" if facts else "")
        + f"{drawing}\n</body>\n</html>\n"
    )


def _wrap(text: str, indent: str) -> list[str]:
    """The lines of a text; names and paths are not broken."""
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent=indent, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def sentence(text: str) -> str:
    """The text with a full stop at its end, unless it has one."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def draw_histograms(histograms: Sequence[Histogram]) -> str:
    """An SVG drawing of histograms. Counts are on a logarithmic scale, so that one bad row in a million is visible."""
    rows = -(-len(histograms) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 1.9 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for ax, histogram in zip(axes, histograms, strict=False):
        ax.stairs(histogram.counts, histogram.edges, fill=True, color="#4c78a8")
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
        ax.set_title(histogram.title, fontsize=9, parse_math=False)
        ax.tick_params(labelsize=8)
        is_whole = bool(np.all(histogram.edges % 1 == 0.5))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=is_whole, min_n_ticks=1 if is_whole else 2))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.6g}"))
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(histograms) :]:
        ax.set_visible(False)
    with io.StringIO() as file, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "flowpolicies"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
        drawing = file.getvalue()
    return drawing[drawing.index("<svg") :]


def _to_html(finding: Finding) -> str:
    texts = [
        f"<p><b>{finding.severity.capitalize()}</b> ({finding.check}): {html.escape(sentence(finding.message))}</p>",
        f'<p class="place">{_place(finding)}</p>' if _place(finding) else "",
        f"<p>{html.escape(finding.advice)}</p>" if finding.advice else "",
    ]
    return f'<div class="finding {finding.severity}">{"".join(texts)}</div>'


def _place(finding: Finding) -> str:
    if finding.row is None:
        return ""
    return f"First in row {finding.row:,} (trajectory {finding.episode:,}, step {finding.step:,})."


def _number(count: int, thing: str) -> str:
    return f"{count or 'no'} {thing}{'' if count == 1 else 's'}"
