"""Layout, colors and units of dashboards, in Grafana's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8
STATE_COLOURS = {
    "running": "green", "draining": "yellow", "lost": "red", "active": "green", "paused": "yellow", "broken": "red",
}  # fmt: skip
COLOURS = {
    "completed": "green", "received": "blue", "failed": "red", "retried": "yellow", "dead": "purple",
    "crashed": "orange", "limit": "red",
}  # fmt: skip
"""Line colors by legend, the same on every panel."""


@dataclass(frozen=True)
class Panel:
    """One panel. ``queries`` are pairs of an expression and the legend of its lines."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    is_stacked: bool = False
    limits: tuple[float, ...] = ()
    """Values from which a figure turns yellow and red; a single limit turns it red."""
    is_low_bad: bool = False
    """Whether a figure below the single limit is red, instead of above it."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def dashboard(uid: str, title: str, rows: tuple[Row, ...], *choices: dict[str, Any]) -> dict[str, Any]:
    """Return one dashboard for Grafana 10 or later."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    return {
        "uid": uid, "title": title, "tags": ["taskapp"], "schemaVersion": 39, "version": 1, "editable": False,
        "timezone": "browser", "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": [source, *choices]},
        "annotations": {"list": [alerts_as_annotations()]},
        "links": [
            {"type": "dashboards", "title": "taskapp", "tags": ["taskapp"], "keepTime": True, "includeVars": True}
        ],
        "panels": list(placed(rows)),
    }  # fmt: skip


def alerts_as_annotations() -> dict[str, Any]:
    """Return the annotation that marks firing alerts on graphs."""
    return {
        "name": "Alerts", "datasource": DATASOURCE, "enable": True, "iconColor": "red", "titleFormat": "{{alertname}}",
        "textFormat": "{{queue}} {{type}}",
        "expr": 'ALERTS{alertname=~"Taskapp.*", alertstate="firing", job=~"$job"}',
    }  # fmt: skip


def placed(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Yield headings and panels, laid out from left to right; a line is as high as its panels."""
    number, top = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
        }  # fmt: skip
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            number += 1
            if left + panel.width > WIDTH:
                top, left = top + height, 0
            height = STAT_HEIGHT if panel.kind == "stat" else GRAPH_HEIGHT
            yield drawn(panel, number, {"x": left, "y": top, "w": panel.width, "h": height})
            left += panel.width
        top += height


def drawn(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    """Return one panel as Grafana's JSON."""
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.description, "gridPos": place,
        "datasource": DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": look(panel), "overrides": list(colours(panel))},
        "options": stat_options() if panel.kind == "stat" else graph_options(),
    }  # fmt: skip


def look(panel: Panel) -> dict[str, Any]:
    """Return a panel's unit, limits and line style."""
    colour = {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"}
    defaults: dict[str, Any] = {"unit": panel.unit, "color": colour, "thresholds": thresholds(panel)}
    if panel.unit == "bool_on_off":
        words = {"0": {"text": "down", "index": 0}, "1": {"text": "up", "index": 1}}
        return {**defaults, "unit": "none", "mappings": [{"type": "value", "options": words}]}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if panel.is_stacked else 8, "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
        }  # fmt: skip
    return defaults


def thresholds(panel: Panel) -> dict[str, Any]:
    """Return the color thresholds of a panel."""
    first, names = ("red", ("green",)) if panel.is_low_bad else ("green", ("yellow", "red")[-len(panel.limits) :])
    steps = [{"color": name, "value": limit} for name, limit in zip(names, panel.limits, strict=bool(panel.limits))]
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, *steps]}


def colours(panel: Panel) -> Iterator[dict[str, Any]]:
    """Yield overrides for lines with a fixed color."""
    legends = {legend for _, legend in panel.queries} if panel.kind == "timeseries" else set()
    own = {name: colour for name, colour in COLOURS.items() if name in legends}
    for name, colour in (STATE_COLOURS if "{{state}}" in legends else own).items():
        yield {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }


def stat_options() -> dict[str, Any]:
    """Return the options of a figure: the last value, on its color."""
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background", "graphMode": "area", "textMode": "value", "justifyMode": "center",
    }  # fmt: skip


def graph_options() -> dict[str, Any]:
    """Return the options of a graph: the legend below, and a tooltip with all lines, highest first."""
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """Return a dashboard variable for the values of a label; all are selected at first."""
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "allValue": ".+", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
