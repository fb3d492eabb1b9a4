"""Pieces of PromQL of which the panels are made."""

from __future__ import annotations


def of(metric: str, *selectors: str) -> str:
    """Return what ``metric`` is now; two exporters of one broker tell the same, and count once."""
    return f"max without (instance) ({metric}{{{_selected(*selectors)}}})"


def per_second(metric: str, *selectors: str) -> str:
    """Return by how much the counter ``metric`` grows in a second."""
    return f"max without (instance) (rate({metric}{{{_selected(*selectors)}}}[$__rate_interval]))"


def within(window: str, metric: str, *selectors: str) -> str:
    """Return by how much the counter ``metric`` has grown within ``window``."""
    return f"max without (instance) (increase({metric}{{{_selected(*selectors)}}}[{window}]))"


def quantile(share: float, histogram: str, by: str = "", *selectors: str) -> str:
    """Return what ``share`` of a histogram is below, for each value of the label ``by``."""
    buckets = per_second(f"{histogram}_bucket", *selectors)
    return f"histogram_quantile({share}, sum by ({', '.join(filter(None, ('le', by)))}) ({buckets}))"


def _selected(*selectors: str) -> str:
    return ", ".join(('job=~"$job"', *selectors))
