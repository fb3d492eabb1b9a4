"""Texts of the product read as a native engineer would write them: phrases that gave a translation away are gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (
    "taskapp", "docs", "benchmarks", "deploy", "scripts", "README.md", "CONTRIBUTING.md", "RELEASING.md",
    "CHANGELOG.md", ".env.example", "docker-compose.yml", "Makefile", "pyproject.toml", "requirements/README.md",
)  # fmt: skip
KINDS = {".py", ".lua", ".js", ".html", ".j2", ".css", ".md", ".yml", ".toml", ""}

PHRASES = {
    r"what (becomes|became|is told) of": "say what happens to it",
    r"\bsay whether\b": "Return whether",
    r"\bso many\b(?! that)": "name the number",
    r"\bwho(ever)? wants\b": "To …",
    r"\basks? nobody\b": "does not ask",
    r"\bf[ae]lls? off\b": "is dropped",
    r"\bof (which|whom) nobody\b|\bof \w+ nobody knows\b": "is unknown",
    r"\bfirst first\b": "soonest first",
    r"\bin vain\b": "without success",
    r"\banew\b": "again",
    r"\bfor ever\b": "forever",
    r"\b(is|are|be|being|was|were) told\b(?! (apart|from|to stop|not to))": "learns, is notified",
    r"\btells? of\b": "reports",
    r"\bis none that\b": "is not a valid …",
    r"\b(is|are|was|were) of no (interest|use)\b": "does not matter",
    r"\bwith its own hands\b": "itself",
    r"\blooked through\b": "searched",
    r"\blets? go of\b": "releases, closes",
    r"\bcome(s)? to an end by itself\b": "ends",
    r"(?<!each )\bone's own\b": "your own",
    r"\bbeside\b(?!s)": "next to, in addition to",
}
"""Pattern to what to write instead."""


def texts() -> Iterator[Path]:
    for place in PLACES:
        path = ROOT / place
        yield from (path,) if path.is_file() else (each for each in path.rglob("*") if each.suffix in KINDS)


@cache
def lines() -> list[tuple[str, str]]:
    """Return each line with its place."""
    return list(_lines())


def _lines() -> Iterator[tuple[str, str]]:
    for path in sorted(texts()):
        if path.is_file() and "__pycache__" not in path.parts and path.name != "test_english.py":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                yield f"{path.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_is_gone(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)

    assert [f"{place}: {line.strip()}" for place, line in lines() if pattern.search(line)] == [], PHRASES[phrase]


def test_texts_are_read() -> None:
    assert len(lines()) > 30_000
    assert {"taskapp/settings.py", "docs/delivery.md", "Makefile"} <= {place.partition(":")[0] for place, _ in lines()}
