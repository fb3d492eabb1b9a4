"""The documents: whom each is for, that its links lead somewhere, and that what it names exists."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*GUIDES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "CHANGELOG.md"))]
RECORDS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
FOR_A_READER = [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "RELEASING.md"]

LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)\s]*)\)")
IN_TREE = re.compile(r"`((?:taskapp|tests|deploy|benchmarks|scripts|docs|requirements)/[\w./-]+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    """The page without its blocks of code, which show what is to be written."""
    return re.sub(r"^( *)```.*?^\1```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file each link of ``page`` leads to, and the anchor in it."""
    for target in LINK.findall(text_of(page)):
        file, _, anchor = target.partition("#")
        yield (page.parent / file).resolve() if file else page, anchor


@pytest.mark.parametrize("page", FOR_A_READER, ids=name_of)
def test_a_page_says_first_for_whom_it_is(page: Path) -> None:
    title, text = page.read_text().split("\n\n", 2)[:2]

    assert title.startswith("# ")
    assert re.match(r"For (everybody|users|operators|contributors|maintainers)\b", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for file, anchor in links(page):
        assert file.exists(), file
        assert not anchor or anchor in anchors(file), (file.name, anchor)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = IN_TREE.findall(re.sub(r"`taskapp/monitor/flower/tabs/delayed.py`|`[\w/]*expedite.lua`", "", text_of(page)))

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_index_lists_every_page_once() -> None:
    listed = [file for file, _ in links(ROOT / "docs/README.md") if file.parent == ROOT / "docs"]

    assert sorted(listed) == [page for page in GUIDES if page.parent == ROOT / "docs" and page.name != "README.md"]


def test_decisions_are_numbered_listed_and_short() -> None:
    listed = [file for file, _ in links(ROOT / "docs/decisions/README.md")]

    assert listed == RECORDS
    for number, record in enumerate(RECORDS, 1):
        lines = record.read_text().splitlines()
        assert record.name.startswith(f"{number:02}-")
        assert lines[0].startswith(f"# {number}. ")
        assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Consequences"]
        assert len(lines) <= 40


def test_the_architecture_names_every_room_in_the_order_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == ["taskapp"]]
    contract = [set(re.findall(r"\w+", layer)) - {"__main__"} for layer in layers]
    table = (ROOT / "docs/architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    rooms = [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()[2:]]

    level = {room: number for number, layer in enumerate(contract) for room in layer}
    assert set().union(*rooms) == set(level)
    listed = [[level[room] for room in row] for row in rooms if row]
    for above, below in itertools.pairwise(listed):
        assert max(above) <= min(below)
