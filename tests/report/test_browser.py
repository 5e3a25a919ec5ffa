"""Pages in a real browser: they draw, sort, zoom and fit, and nothing in a run folder can run as a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpolicies.inspection import Histogram, Inspection
from flowpolicies.inspection.report import to_html


@pytest.fixture(scope="module")
def wide(open_page: Any, report: Path) -> Iterator[Any]:
    opened = open_page(report)
    yield opened
    opened.context.close()


def fits(page: Any) -> bool:
    """Whether nothing of a page is beyond its right edge."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def background(page: Any) -> int:
    """Brightness of a page's background, from 0 to 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in color.strip("rgb()").split(","))


def test_the_page_draws_without_errors_or_network(wide: Any, report: Path) -> None:
    assert wide.problems == []
    assert wide.asked[0] == report.as_uri()
    assert all(address.startswith("data:") for address in wide.asked[1:])
    curves = wide.page.locator("#learning-curves .chart")
    assert curves.count() == 3  # The mean over tasks, and two tasks.
    for number in range(3):
        points = curves.nth(number).locator(".mark-symbol path")
        assert points.count() >= 4
    assert curves.nth(1).locator(".switch_marks line").count() == 1
    assert curves.nth(1).locator(".mark-area path").first.get_attribute("d").count(",") > 3
    assert wide.page.locator("#videos img").evaluate("image => image.complete && image.naturalWidth") == 1


def test_nothing_of_a_run_runs_as_a_script(wide: Any) -> None:
    assert wide.page.title().startswith("Report: <img")
    assert "owned" in wide.page.locator("#configuration").inner_text()
    assert wide.page.locator("main img").count() == 1  # The video.
    blocked = "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
    wide.page.evaluate(f"{blocked} document.body.append(s) }})()")
    assert wide.page.evaluate("window.ran") is None  # What is put into the page in another way does not run either.
    assert "Content Security Policy" in wide.problems.pop()


def test_tables_sort_by_click_and_by_keyboard(wide: Any) -> None:
    page = wide.page

    def scores() -> list[float]:
        return [float(text) for text in page.locator("#runs td:last-child").all_inner_texts()]

    unsorted = scores()
    page.locator("#runs").get_by_role("button", name="success in %").click()
    assert page.locator("#runs th[aria-sort=ascending]").inner_text().startswith("success in %")
    assert scores() == sorted(unsorted) != unsorted
    page.keyboard.press("Enter")
    assert page.locator("#runs th[aria-sort=descending]").count() == 1
    assert scores() == sorted(unsorted, reverse=True)
    page.locator("#runs").get_by_role("button", name="seed", exact=True).press("Space")
    seeds = [int(text) for text in page.locator("#runs td:nth-child(4)").all_inner_texts()]
    assert seeds == sorted(seeds)
    assert page.locator("#runs th[aria-sort]").count() == 1


def test_charts_zoom_and_hide_by_buttons(wide: Any) -> None:
    chart = wide.page.locator("#learning-curves figure").nth(1)

    def state() -> tuple[str, int]:
        """Numbers on the axes, and number of points."""
        labels = chart.locator(".role-axis-label text").all_text_contents()
        return ",".join(sorted(labels)), chart.locator(".mark-symbol path").count()

    def wait_until(holds: Callable[[tuple[str, int]], bool]) -> None:
        for _ in range(200):
            if holds(state()):
                return
            wide.page.wait_for_timeout(20)
        raise AssertionError(state())

    before = state()
    chart.get_by_role("button", name="Zoom in").press("Enter")
    wait_until(lambda now: now[0] != before[0])
    chart.get_by_role("button", name="Show everything").click()
    wait_until(lambda now: now == before)
    wide.page.get_by_role("checkbox", name="fql").uncheck()
    wait_until(lambda now: 0 < now[1] < before[1])
    wide.page.get_by_role("checkbox", name="fql").check()
    wait_until(lambda now: now[1] == before[1])


def test_dark_mode_follows_the_system_and_the_button(wide: Any, open_page: Any, report: Path) -> None:
    assert background(wide.page) > 200
    wide.page.get_by_role("button", name="Dark", exact=True).click()
    assert background(wide.page) < 60
    wide.page.get_by_role("button", name="Light", exact=True).click()
    assert background(wide.page) > 200
    dark = open_page(report, 400, "dark")
    assert background(dark.page) < 60
    assert fits(dark.page)
    text = dark.page.locator(".chart svg text").first.evaluate("text => getComputedStyle(text).fill")
    assert min(int(part) for part in text.strip("rgb()").split(",")) > 150
    dark.page.emulate_media(media="print")
    assert background(dark.page) > 200
    assert dark.problems == []
    dark.context.close()


def test_histograms_of_data_check_can_be_read_on_a_phone(open_page: Any, tmp_path: Path) -> None:
    histogram = Histogram("Observation 0", np.array([5, 2000, 3]), np.array([0.0, 1.0, 2.0, 3.0]))
    path = tmp_path / "check.html"
    path.write_text(to_html(Inspection("data", {"rows": "1"}, (), (histogram,) * 2)))
    opened = open_page(path, 400)
    sizes = opened.page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert len(sizes) > 10
    assert min(sizes) >= 10  # Pixels; they had 4.
    assert fits(opened.page)
    assert opened.problems == []
    opened.context.close()
