"""Reports of inspections as text and as a web page."""

from __future__ import annotations

import numpy as np
from pendulum_data import Columns, as_dataset, put

from flowpolicies.inspection import Histogram, inspect_dataset
from flowpolicies.inspection.report import draw_histogram, to_html, to_text


def test_the_report_tells_what_where_and_what_to_do(columns: Columns) -> None:
    put("observations", np.nan)(columns)
    dataset = as_dataset(columns, provenance={"name": "<pendulum>"})
    inspection = inspect_dataset(dataset)
    text, page = to_text(inspection), to_html(inspection)
    assert text.startswith("<pendulum>\n  transitions ")
    assert "FAULT [values] observations are NaN or infinite in 1 transitions." in text
    assert "  First in row 437 (trajectory 4, step 37)." in text
    assert text.endswith("1 fault, no warnings")
    assert "\nnot judged: trajectories: wrong values or flags would mislead these checks.\n" in text
    assert "wrong values or flags would mislead these checks." in page
    assert max(map(len, text.splitlines())) <= 100
    assert "<h1>&lt;pendulum&gt;: data check</h1>" in page
    assert page.count("<svg") == len(inspection.histograms) > 5
    assert "Return of a trajectory" in page
    for outside in ("<link", 'src="', "url(http", "vegaEmbed"):
        assert outside not in page
    assert to_html(inspection) == page


def test_titles_are_no_formulas() -> None:
    drawing = draw_histogram(Histogram("Observation/a$\\frac$<b> 0", np.array([1]), np.array([0.0, 1.0])))
    assert "Observation/a$\\frac$&lt;b&gt; 0" in drawing
