"""Specifications of charts in Vega-Lite. Names of runs only occur in them as data, never as fields or expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
DataRows = Sequence[Mapping[str, Any]]
Colors = Mapping[str, str]

ZOOM = "wheel![event.ctrlKey || event.metaKey]"
"""Event that zooms: a wheel alone scrolls the page."""
STEPS: Spec = {"format": "~s", "tickCount": 5, "labelExpr": "datum.value ? datum.label : '0'"}
"""Axis of steps."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Dashes of lines, of which each is for as many labels as there are colors."""


def curves(
    points: DataRows, seeds: DataRows, colors: Colors, *, x: str, y: str, switch: int | None, extent: Sequence[float]
) -> Spec:
    """Learning curves with their bands, thin lines of the single runs, and a line where online training begins.

    Args:
        points: rows with label, x, mean, low, high and runs.
        seeds: rows with label, run, x and mean.
        colors: label -> color.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        switch: position at which online training begins; None: it does not.
        extent: least and greatest value of the vertical axis; empty: those of the points.
    """
    up = {"scale": _scale(extent)}
    place: Spec = {"x": _axis("x", x, axis=STEPS, scale={"nice": False, "zero": True}), "color": _color(colors)}
    mean = place | {"y": _axis("mean", y, **up)}
    band = place | {"y": _axis("low", y, **up), "y2": {"field": "high"}}
    names = {"label": "label", "x": "step", "mean": "mean", "low": "from", "high": "to", "runs": "runs"}
    layers = [_layer("area", band, opacity=0.18), _layer("line", mean | {"strokeDash": _dash(colors)}, strokeWidth=2)]
    alone = [row for row in points if sum(other["label"] == row["label"] for other in points) == 1]
    if alone:  # A band of one point has no width.
        layers.append(_layer("rule", band, alone, strokeWidth=2))
    if seeds:
        layers.append(_layer("line", mean | {"detail": {"field": "run"}}, seeds, opacity=0.4, strokeWidth=0.8))
    layers.append(_layer("point", mean | {"tooltip": _tooltip(names)}, filled=True, size=36, opacity=1))
    return _chart(layers if switch is None else [*layers, *_switch(switch)], points, colors)


def _switch(position: int) -> list[Spec]:
    """A vertical line where online training begins, with a word on each side of its top."""
    place: Spec = {"encoding": {"x": {"field": "x", "type": "quantitative"}}, "data": {"values": [{"x": position}]}}
    text = {"type": "text", "y": -6, "fontSize": 11, "clip": False}
    return [
        place | {"name": "switch", "mark": {"type": "rule", "strokeDash": [4, 3], "clip": True}},
        place | {"mark": text | {"text": "offline", "align": "right", "dx": -4}},
        place | {"mark": text | {"text": "online", "align": "left", "dx": 4}},
    ]


def intervals(rows: DataRows, colors: Colors, *, x: str, extent: Sequence[float]) -> Spec:
    """A point with its interval for each row.

    Args:
        rows: rows with label, kind, mean, low and high.
        colors: label -> color.
        x: title of the horizontal axis.
        extent: least and greatest value of the axis; empty: those of the rows.
    """
    kinds: Spec = {"field": "kind", "type": "nominal", "sort": list(dict.fromkeys(row["kind"] for row in rows))}
    across = {"scale": _scale(extent), "axis": {"tickCount": 5}}
    label = {"field": "label", "type": "nominal", "title": None, "sort": list(colors)}
    place: Spec = {"y": label, "yOffset": kinds, "color": _color(colors)}
    bar = place | {"x": _axis("low", x, **across), "x2": {"field": "high"}}
    shape = kinds | {"legend": {"orient": "bottom", "title": None}}
    tooltip = _tooltip({name: name for name in ("label", "kind", "mean", "low", "high")})
    point = place | {"x": _axis("mean", x, **across), "shape": shape, "tooltip": tooltip}
    layers = [_layer("rule", bar, strokeWidth=5, opacity=0.35), _layer("point", point, filled=True, size=60, opacity=1)]
    return _chart(layers, rows, colors, height=22 * len(rows) + 10, zooms=False)


def lines(rows: DataRows, colors: Colors, *, x: str, y: str) -> Spec:
    """A line for each run.

    Args:
        rows: a row for each run, with label, run, and lists x and value.
        colors: label -> color.
        x: title of the horizontal axis.
        y: name of the values.
    """
    place: Spec = {
        "x": _axis("x", x, axis=STEPS, scale={"nice": False}),
        "y": _axis("value", None, scale={"zero": False}),
    }
    tooltip = _tooltip({"run": "run", "x": "step", "value": y})
    more = {"color": _color(colors), "strokeDash": _dash(colors), "detail": {"field": "run"}, "tooltip": tooltip}
    chart = _chart([_layer("line", place | more, strokeWidth=1.3, opacity=0.85)], rows, colors, height=200)
    return chart | {"transform": [{"flatten": ["x", "value"]}]}


def densities(rows: DataRows, data: DataRows, colors: Colors, *, x: str) -> Spec:
    """Histograms as steps: those of labels over the gray one of the data.

    Args:
        rows: rows with label, x and share.
        data: rows of the data with x and share.
        colors: label -> color.
        x: title of the horizontal axis.
    """
    place = {"x": _axis("x", x, scale={"domain": [-1, 1]}), "y": _axis("share", "share in %")}
    gray = _layer("area", place, opacity=0.4, color="#888888", interpolate="step")
    gray = {**gray, "data": {"values": list(data)}, "transform": []}
    labels = place | {"color": _color(colors), "strokeDash": _dash(colors)}
    layers = [gray, _layer("line", labels, strokeWidth=1.8, interpolate="step")]
    return _chart(layers, rows, colors, height=170, zooms=False)


def _chart(layers: Sequence[Spec], rows: DataRows, colors: Colors, *, height: int = 260, zooms: bool = True) -> Spec:
    """A chart of several layers as wide as its place, in which what the key unchecks is hidden."""
    first, *others = layers
    grid = {"name": "grid", "select": {"type": "interval", "zoom": ZOOM}, "bind": "scales"}
    return {
        "width": "container",
        "height": height,
        "data": {"values": list(rows)},
        "params": [{"name": "shown", "value": list(colors)}],
        "layer": [first | {"params": [grid]} if zooms else first, *others],
    }


def _layer(kind: str, encoding: Spec, rows: DataRows | None = None, **mark: Any) -> Spec:
    """A layer, with data of its own or those of the chart."""
    data = {} if rows is None else {"data": {"values": list(rows)}}
    hidden = {"filter": "indexof(shown, datum.label) >= 0"}
    return {**data, "transform": [hidden], "mark": {"type": kind, "clip": True, **mark}, "encoding": encoding}


def _scale(extent: Sequence[float]) -> Spec:
    """The scale of scores, with room for points that lie on its ends."""
    if not extent:
        return {"zero": False}
    low, high = extent
    return {"domain": [low - 0.02 * (high - low), high + 0.02 * (high - low)], "nice": False}


def _axis(field: str, title: str | None, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _color(colors: Colors) -> Spec:
    scale = {"domain": list(colors), "range": list(colors.values())}
    return {"field": "label", "type": "nominal", "scale": scale, "legend": None}


def _dash(colors: Colors) -> Spec:
    """Dashes differ where colors repeat."""
    unique = len(set(colors.values()))
    dashes = [DASHES[number // unique % len(DASHES)] for number in range(len(colors))]
    return {"field": "label", "type": "nominal", "scale": {"domain": list(colors), "range": dashes}, "legend": None}


def _tooltip(names: Mapping[str, str]) -> list[Spec]:
    """Fields that a point shows, with their titles."""
    return [{"field": field, "title": title} for field, title in names.items()]
