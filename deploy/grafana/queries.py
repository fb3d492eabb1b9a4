"""PromQL building blocks for the panels."""

from __future__ import annotations


def of(metric: str, *selectors: str) -> str:
    """Return the current value of ``metric``; two exporters of one broker report the same and count once."""
    return f"max without (instance) ({metric}{{{_selected(*selectors)}}})"


def per_second(metric: str, *selectors: str) -> str:
    """Return the per-second rate of the counter ``metric``."""
    return f"max without (instance) (rate({metric}{{{_selected(*selectors)}}}[$__rate_interval]))"


def within(window: str, metric: str, *selectors: str) -> str:
    """Return the increase of the counter ``metric`` within ``window``."""
    return f"max without (instance) (increase({metric}{{{_selected(*selectors)}}}[{window}]))"


def quantile(share: float, histogram: str, by: str = "", *selectors: str) -> str:
    """Return the ``share`` quantile of a histogram, for each value of the label ``by``."""
    buckets = per_second(f"{histogram}_bucket", *selectors)
    return f"histogram_quantile({share}, sum by ({', '.join(filter(None, ('le', by)))}) ({buckets}))"


def _selected(*selectors: str) -> str:
    return ", ".join(('job=~"$job"', *selectors))
