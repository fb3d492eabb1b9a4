"""The documents: whom each is for, that its links lead somewhere, and that what it names exists."""

from __future__ import annotations

import inspect
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import taskapp
from taskapp.cli.main import taskapp as commands_of_taskapp
from taskapp.env_file import ENV_FILE_VARIABLE
from taskapp.monitor.flower.page import tab as tab_module
from taskapp.monitor.flower.page import view as view_module
from taskapp.monitor.flower.page.tab import Tab
from taskapp.monitor.metrics import METRICS
from taskapp.redis.keys import KEYS
from taskapp.settings import SETTING_NAMES

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


# --- what pages name --------------------------------------------------------------------------------

CURRENT = [page for page in PAGES if page.name not in {"CHANGELOG.md", "CONTRIBUTING.md"}]
"""Pages that speak of what there is: not of what was, nor of what an example adds."""

COMMAND = re.compile(r"(?:^|`|\$ |&& |=\S* |bin/)taskapp ((?:[a-z][a-z-]*)[^`\n#]*)", re.MULTILINE)


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_settings_metrics_and_alerts_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/taskapp.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    series = {name for metric in METRICS for name in (metric.name, *metric.series())}

    assert set(re.findall(r"\bTASKAPP_[A-Z_]+[A-Z]\b", text)) <= {*SETTING_NAMES, ENV_FILE_VARIABLE}
    assert set(re.findall(r"\bTaskapp[A-Z]\w+", text)) - {"TaskappError"} <= alerts
    keys = {name.lower() for name in SETTING_NAMES}  # in an app's own configuration
    named = set(re.findall(r"\b(taskapp_[a-z_]+[a-z])\b(?!`? header)", text)) - HEADERS_AND_TABLES - FIXTURES - keys
    assert named <= series


FIXTURES = {"taskapp_app", "taskapp_worker"}
HEADERS_AND_TABLES = {"taskapp_due_at", "taskapp_copy", "taskapp_history", "taskapp_history_layout", "taskapp_outbox"}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each call of the ``taskapp`` command that ``text`` shows: as it stands, and its words."""
    for call in COMMAND.findall(text):
        for words in alternatives(call):
            yield call, words


def alternatives(call: str) -> Iterator[list[str]]:
    """``dead list | show ID`` is two calls, and ``list`` alone would be one of ``taskapp``."""
    first, *others = re.split(r" *\| *", call)
    try:
        words = shlex.split(first)
    except ValueError:
        return
    yield words
    group = words[0]
    for other in others:
        if (rest := other.split()) and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            yield rest if len(words) == 1 else [group, *rest]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command, found as far as words name one, and the words behind it."""
    command: click.Command = commands_of_taskapp
    rest = words[2:] if words[:1] == ["-A"] else words
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, words
        command, rest = found, rest[1:]
    return command, rest


def before_two_dashes(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def test_calls_are_found_in_pages() -> None:
    found = {" ".join(words) for page in CURRENT for _, words in commands(page.read_text())}

    assert {"dead replay", "health ready", "schedules calendar holidays 2026-12-24/2026-12-26 2027-01-01"} <= found
    assert len(found) > 40


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    for call, words in commands(page.read_text()):
        command, rest = command_of(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.partition("=")[0] for word in before_two_dashes(rest) if re.match(r"--?[a-z]", word)}
        assert options <= {*known, "--help"}, call


def test_the_readme_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text().partition("| extra | needed for |")[2].partition("\n\n")[0]

    assert set(extras) <= set(re.findall(r"`([a-z]+)`", table))


# --- worked examples --------------------------------------------------------------------------------


def example(language: str, containing: str) -> str:
    """The block of code in CONTRIBUTING.md that is about ``containing``."""
    blocks = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
    )
    [block] = [text for _, text in blocks if containing in text]
    return textwrap.dedent(block)


def test_the_example_of_a_tab_has_what_a_tab_has() -> None:
    names: dict[str, Any] = {**vars(tab_module), **vars(view_module)}
    exec(example("python", "class DelayedTab"), names)
    tab = names["DelayedTab"]

    assert tab().title == "Delayed"
    assert inspect.signature(tab.view).parameters.keys() == inspect.signature(Tab.view).parameters.keys()
    assert {name for name in vars(tab) if not name.startswith("_")} <= {*vars(Tab), *Tab.__annotations__}
    assert set(Tab.__annotations__) <= {*tab.__annotations__}


def test_the_example_of_a_script_calls_what_scripts_can_call() -> None:
    body = example("lua", "ZREM")
    prelude = (ROOT / "taskapp/engine/lua/prelude.lua").read_text()
    called = set(re.findall(r"(?<![.\w])([a-z_]+)\(", re.sub("--.*", "", body)))

    assert {name.removeprefix("key_") for name in called if name.startswith("key_")} <= set(KEYS)
    assert {name for name in called if f"function {name}(" not in prelude and not name.startswith("key_")} == set()


def test_the_example_of_an_alert_asks_for_metrics_there_are() -> None:
    [rule] = yaml.safe_load(example("yaml", "annotations"))
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/taskapp.yml").read_text())["groups"][0]["rules"]

    assert rule.keys() == rules[0].keys()
    assert rule["annotations"].keys() == rules[0]["annotations"].keys()
    assert set(re.findall(r"taskapp_\w+", rule["expr"])) <= {metric.name for metric in METRICS}


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


OF_COMMANDS = {"demo-nodes", "demo-schedules", "flaky-server", "reload"}
"""Threads of programs that are neither nodes nor clients."""


def test_the_architecture_names_every_thread() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "taskapp").rglob("*.py"))
    started = re.findall(r'(?:start_thread\(.*, name=|LazyThread\(.*, )"([a-z-]+)"', sources)
    named = re.findall(r"`taskapp-([a-z-]+[a-z])", (ROOT / "docs/architecture.md").read_text())

    assert set(named) - {"task"} == set(started) - OF_COMMANDS


def levels() -> dict[str, int]:
    """How high each room is in the import contract; 0 is the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == ["taskapp"]]
    return {room: level for level, layer in enumerate(layers) for room in re.findall(r"\w+", layer)}


def rooms_of_the_architecture() -> list[str]:
    table = (ROOT / "docs/architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    return [room for row in table.splitlines()[2:] for room in re.findall(r"`(\w+)`", row.split("|")[1])]


@pytest.mark.parametrize(
    "rooms",
    [rooms_of_the_architecture(), re.findall(r"^``(\w+)``", str(taskapp.__doc__), re.MULTILINE)[::-1]],
    ids=["docs/architecture.md", "taskapp/__init__.py"],
)
def test_a_map_names_every_room_in_the_order_of_the_contract(rooms: list[str]) -> None:
    known = levels()

    assert sorted([*rooms, "__main__"]) == sorted(known)
    assert [known[room] for room in rooms] == sorted(known[room] for room in rooms)
