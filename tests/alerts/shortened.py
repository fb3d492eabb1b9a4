"""The same rules in less time."""

from __future__ import annotations

import re

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
TIMES = "for|group_wait|group_interval|repeat_interval|scrape_interval|evaluation_interval"


def shortened(text: str, factor: float) -> str:
    """Return a configuration of Prometheus or Alertmanager, or rules, with every time divided by ``factor``.

    These are: how long a rule waits and how often things are done (``for: 30s``, ``group_wait: 10s`` …), ranges
    (``[5m]``), and numbers marked ``# seconds``. Counts, ratios and rates stay as they are, so the rule says the same
    of a system in which everything happens ``factor`` times as fast.
    """

    def duration(found: re.Match[str]) -> str:
        before, number, unit, after = found.groups()
        return f"{before}{int(int(number) * UNITS_MS[unit] / factor)}ms{after}"

    def seconds(found: re.Match[str]) -> str:
        number, after = found.groups()
        return f"{float(number) / factor:.3g}{after}"

    text = re.sub(rf"(\b(?:{TIMES}): )(\d+)(ms|s|m|h)()\b", duration, text)
    text = re.sub(r"(\[)(\d+)(ms|s|m|h)(\])", duration, text)
    return re.sub(r"\b(\d+)(\)? # seconds)", seconds, text)
