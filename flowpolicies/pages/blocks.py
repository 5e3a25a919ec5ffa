"""What a page is made of. All texts are plain: the template escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

Level = Literal["bad", "look", "ok", "info"]
"""How urgent something is; it determines the color."""
SHORT = 50
"""Number of characters from which on a cell may have several lines."""


class PageCell(NamedTuple):
    """A cell of a table."""

    text: str
    """Text that people see."""
    order: float | str | None = None
    """What the table is sorted by; None: the text."""
    share: float | None = None
    """Number between 0 and 1 that determines how strongly the cell is colored; None: not at all."""
    level: Level | None = None
    """How urgent the cell is; None: it is not judged."""

    @property
    def classes(self) -> str:
        """Classes of the cell in the page."""
        kinds = {"short": len(self.text) < SHORT, "heat": self.share is not None}
        return " ".join(
            [name for name, holds in kinds.items() if holds] + (["level", self.level] if self.level else [])
        )


class TableBlock(NamedTuple):
    """A table that people can sort by each column."""

    caption: str
    """What is in the table, and in which unit."""
    columns: Sequence[str]
    """Heads of the columns."""
    rows: Sequence[Sequence[PageCell]]
    """Cells, as many in each row as there are columns."""
    kind: str = "table"
    """Name of the template's macro."""


class ChartBlock(NamedTuple):
    """A chart that people can zoom, drawn by Vega-Lite."""

    title: str
    """Title above the chart, which also describes it to screen readers."""
    spec: Mapping[str, Any]
    """Specification of the chart in Vega-Lite, with its data; not finite numbers become null."""
    zooms: bool = False
    """Whether the chart has a selection `grid` that is bound to its scales, so that buttons can zoom."""
    kind: str = "chart"
    """Name of the template's macro."""


class KeyBlock(NamedTuple):
    """The colors of all charts of a page, with boxes to hide what has a color."""

    colors: Mapping[str, str]
    """Label of runs -> its color."""
    kind: str = "key"
    """Name of the template's macro."""


class DrawingBlock(NamedTuple):
    """A small drawing, of which several are put beside each other where there is room."""

    svg: str
    """SVG that we have drawn ourselves: it is not escaped."""
    kind: str = "drawing"
    """Name of the template's macro."""


class TextBlock(NamedTuple):
    """A paragraph."""

    text: str
    """The text of the paragraph."""
    kind: Literal["text", "missing"] = "text"
    """What the paragraph says: anything, or what the page lacks and how to get it."""


class NoticeBlock(NamedTuple):
    """A finding: what it is, and what to do about it."""

    level: Level
    """How urgent it is."""
    head: str
    """Name of the finding."""
    texts: Sequence[str]
    """Paragraphs below the name."""
    kind: str = "notice"
    """Name of the template's macro."""


class CodeBlock(NamedTuple):
    """Commands or settings, which are folded away."""

    title: str
    """What is folded away."""
    text: str
    """The text, with line breaks."""
    kind: str = "code"
    """Name of the template's macro."""


class MediaBlock(NamedTuple):
    """A video or an animated picture, which is in the page itself."""

    title: str
    """Name of what is seen."""
    address: str
    """Its bytes, as a data: address."""
    is_video: bool
    """Whether it is a video, which has controls, or a picture."""
    kind: str = "media"
    """Name of the template's macro."""


PageBlock = TableBlock | ChartBlock | KeyBlock | DrawingBlock | TextBlock | NoticeBlock | CodeBlock | MediaBlock


@final
@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, with a heading that links lead to."""

    title: str
    """Heading of the section."""
    sentence: str
    """One sentence that says what is seen in it."""
    blocks: Sequence[PageBlock] = ()
    """Contents of the section."""

    @property
    def anchor(self) -> str:
        """The name that links lead to."""
        return "-".join(self.title.lower().split())
