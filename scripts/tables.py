"""Write the tables that documents repeat from the code: settings, metrics and alerts.

python scripts/tables.py

Changes README.md, .env.example, docs/metrics.md and docs/alerts.md. Everything around the tables stays as it is.
Tests fail while a table differs from its source.
"""

from __future__ import annotations

import ast
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from taskapp.monitor.metrics import METRICS
from taskapp.settings import PREFIX, Settings
from taskapp.urls import SecretText

ROOT = Path(__file__).parent.parent
COLUMNS = 118
DIFFERS_BY_USER = {"data_dir": "~/.local/share/taskapp"}


def meanings() -> Iterator[tuple[str, str]]:
    """Yield the name of each field of ``Settings`` and its docstring in one line."""
    module = ast.parse((ROOT / "taskapp/settings.py").read_text())
    [fields] = [node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    for field, text in itertools.pairwise(fields):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            yield ast.unparse(field.target), " ".join(ast.literal_eval(text.value).split())


def default_of(name: str) -> str:
    """Return the default of a setting as one writes it in the environment; empty for none."""
    if name in DIFFERS_BY_USER:
        return DIFFERS_BY_USER[name]
    value = getattr(Settings(), name)
    if value is None or isinstance(value, SecretText):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def settings_rows() -> Iterator[str]:
    """Yield the rows of the table in the README."""
    for name, meaning in meanings():
        default = default_of(name)
        yield f"| `{PREFIX}{name.upper()}` | {f'`{default}`' if default else ''} | {meaning} |"


def settings_blocks() -> str:
    """Return the settings as ``.env.example`` lists them."""
    blocks = []
    for name, meaning in meanings():
        lines = textwrap.wrap(meaning, COLUMNS, break_long_words=False, break_on_hyphens=False)
        blocks.append("".join(f"# {line}\n" for line in lines) + f"# {PREFIX}{name.upper()}={default_of(name)}\n")
    return "\n".join(blocks)


def metrics_rows() -> Iterator[str]:
    """Yield the rows of the table of metrics."""
    for metric in METRICS:
        yield f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |"


def alerts_rows() -> Iterator[str]:
    """Yield the rows of the table of alerts."""
    for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    notes = rule["annotations"]
                    severity = rule["labels"]["severity"]
                    yield f"| `{rule['alert']}` | {severity} | {notes['description']} | {notes['runbook']} |"


def replace(document: str, pattern: str, text: str) -> None:
    """Put ``text`` in the place of all that ``pattern`` finds in ``document``, from its first line to its last."""
    path = ROOT / document
    before = path.read_text()
    found = [match.span() for match in re.finditer(pattern, before, re.MULTILINE)]
    after = before[: found[0][0]] + text + before[found[-1][1] :]
    if after != before:
        path.write_text(after)


def replace_rows(document: str, begins: str, rows: Callable[[], Iterator[str]]) -> None:
    """Write ``rows`` in the place of the rows of ``document`` that begin with ``begins``, in the first such table."""
    table, *_ = re.finditer(rf"(^\| `{begins}.*\n)+", (ROOT / document).read_text(), re.MULTILINE)
    replace(document, re.escape(table[0]), "".join(f"{row}\n" for row in rows()))


if __name__ == "__main__":
    replace_rows("README.md", PREFIX, settings_rows)
    replace(".env.example", rf"^(# (?!Every setting|For docker).*\n)+# {PREFIX}\w+=.*\n", settings_blocks())
    replace_rows("docs/metrics.md", "taskapp_", metrics_rows)
    replace_rows("docs/alerts.md", "Taskapp", alerts_rows)
