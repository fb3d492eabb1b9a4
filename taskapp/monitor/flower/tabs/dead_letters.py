"""The tab for dead letters: find, read, replay and purge them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any, ClassVar

from taskapp.app.application import Celery
from taskapp.app.masks import HIDDEN, Masked, redact
from taskapp.engine.dead_letters import REASONS, DeadLetter, DeadLetters
from taskapp.engine.dead_pages import DeadPage, Listed, Wanted
from taskapp.errors import KeyTaken
from taskapp.monitor.flower.page.tab import Action, ActionRequest, Done, NotFound, PageQuery, Tab
from taskapp.monitor.flower.page.view import (
    Button,
    Card,
    Cards,
    Column,
    FactLine,
    FactsBlock,
    Field,
    Filters,
    TableBlock,
    Text,
    View,
)
from taskapp.transport.codec import Unreadable, read_arguments

ROWS = 50
ACTED_ON_AT_ONCE = 500
"""Maximum number of matching letters per call; the page repeats the call until none are left."""
SHOWN_MOST = 5
"""Maximum number of letters of which an action tells why they stay."""
ERROR_CHARACTERS = 300
ARGUMENT_CHARACTERS = 20_000

BUTTONS = (
    Button("replay", "Replay", asks="Replay {}? Attempts count from zero again; task ids stay the same.", for_all=True),
    Button("purge", "Purge", "danger", asks="Delete {} permanently?", for_all=True),
)
COLUMNS = (
    Column("name", "Letter", "code"), Column("reason", "Reason", "state"), Column("task", "Task type", "code"),
    Column("error", "Error"), Column("buried_at", "Buried", "time"), Column("deliveries", "Redelivered", "count"),
    Column("message_bytes", "Size", "bytes"), Column("id", "Task id", "code"),
)  # fmt: skip


class DeadLettersTab(Tab):
    """Dead letters."""

    name: ClassVar[str] = "dead-letters"
    title: ClassVar[str] = "Dead letters"
    about: ClassVar[str] = "Messages that failed, or could not be read or run, kept byte for byte."
    order: ClassVar[int] = 40
    row_noun: ClassVar[str] = "letters"
    without_engine: ClassVar[str] = (
        "Dead letters are kept only with Redis as the broker. RabbitMQ has its own dead-letter exchanges; "
        "see its management page for their messages."
    )

    def view(self, app: Celery, query: PageQuery) -> View:
        """Return a page of letters, or one letter."""
        with app.engine() as engine:
            letters = engine.dead_letters
            return _one(app, letters, query["show"]) if query["show"] else _list(app, letters, query)

    @property
    def actions(self) -> Mapping[str, Action]:
        """Replay and purge, by name or all that match."""
        return {"replay": partial(_act, "replayed", _replay), "purge": partial(_act, "purged", _purge)}


def _wanted(query: PageQuery, until: float = 0.0) -> Wanted:
    return Wanted(query["queue"], query["reason"], query["text"], until)


def _list(app: Celery, letters: DeadLetters, query: PageQuery) -> View:
    # Take the time before reading, so that letters that arrive later do not count as seen.
    at, counts = letters.now(), letters.count()
    queues = sorted({*app.queue_names(), *(queue for queue, _ in counts)})
    found = letters.page(_wanted(query), query["after"], ROWS)
    by_reason = {reason: sum(n for (_, why), n in counts.items() if why == reason) for reason in REASONS}
    return View([
        Cards([Card(reason, number, tone="danger" if number else "") for reason, number in by_reason.items()]),
        Filters([
            Field("queue", "Queue", query["queue"], queues),
            Field("reason", "Reason", query["reason"], REASONS),
            Field("text", "Id, task type or error contains", query["text"]),
        ]),
        TableBlock(
            f"{sum(counts.values()):,} dead letters", COLUMNS, [_row(app, letter) for letter in found.letters],
            _empty(sum(counts.values()), found), key="name", has_details=True, buttons=BUTTONS, cursor=found.cursor,
        ),
    ], at)  # fmt: skip


def _row(app: Celery, letter: Listed) -> dict[str, Any]:
    # The list does not read the messages, so an error may quote any masked argument.
    error = letter.error if redact(app, letter.task, _unread) is None else HIDDEN.strike(letter.error)
    error = error if len(error) <= ERROR_CHARACTERS else f"{error[:ERROR_CHARACTERS]}…"
    return {**letter._asdict(), "name": letter.name, "error": error}


def _unread() -> tuple[Any, Any]:
    raise Unreadable("it was not read")


def _empty(total: int, found: DeadPage) -> str:
    if found.cursor:
        return "No matches so far; the search continues on the next page."
    return "No matching dead letters." if total else "No dead letters."


def _one(app: Celery, letters: DeadLetters, name: str) -> View:
    letter = letters.get(*_split(name)) if _is_name(name) else None
    if letter is None:
        raise NotFound(f"no dead letter {name!r}: it was replayed or purged, or never existed")
    seen = redact(app, letter.task, lambda: read_arguments(letter.raw))
    return View([
        FactsBlock(name, [
            FactLine("Reason", letter.reason, "state"), FactLine("Task type", letter.task, "code"),
            FactLine("Task id", letter.id, "code"), FactLine("Queue", letter.queue, "code"),
            FactLine("Priority", letter.priority, "count"), FactLine("Redelivered", letter.deliveries, "count"),
            FactLine("Crashes", letter.crashes, "count"), FactLine("Buried", letter.buried_at, "time"),
            FactLine("Node", letter.node, "code"), FactLine("Message", len(letter.raw), "bytes"),
        ], name, BUTTONS),
        Text("Error", letter.error if seen is None else seen.strike(letter.error)),
        *_arguments(letter, seen),
    ], letters.now(), refresh_seconds=30.0)  # fmt: skip


def _arguments(letter: DeadLetter, seen: Masked | None) -> list[Text]:
    try:
        args, kwargs = read_arguments(letter.raw)
    except Unreadable as error:
        return [Text("Arguments", f"unreadable: {error}")]
    if seen is not None:
        args, kwargs = seen.args, seen.kwargs
    return [Text("Arguments", _pretty(args)), Text("Keyword arguments", _pretty(kwargs))]


def _pretty(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= ARGUMENT_CHARACTERS else f"{text[:ARGUMENT_CHARACTERS]}\n… {len(text):,} characters"


# --- actions ---------------------------------------------------------------------------------------

Each = Callable[[DeadLetters, str, list[int]], tuple[int, list[KeyTaken]]]
"""Acts on letters of one queue; returns how many it acted on, and why others stay."""


def _act(done: str, act: Each, app: Celery, order: ActionRequest) -> Done:
    with app.engine() as engine:
        letters = engine.dead_letters
        if order.fits is None:
            names, cursor = [_split(name) for name in order.keys if _is_name(name)], ""
        else:
            page = letters.page(_wanted(order.fits, order.asked_at), order.cursor, ACTED_ON_AT_ONCE)
            names, cursor = [(letter.queue, letter.number) for letter in page.letters], page.cursor
        by_queue = groupby(sorted(names), key=lambda name: name[0])
        acted = [act(letters, queue, [number for _, number in each]) for queue, each in by_queue]
    count, kept = sum(number for number, _ in acted), [error for _, errors in acted for error in errors]
    gone = len(order.keys) - count - len(kept) if order.fits is None else 0
    problems = [f"{gone:,} no longer existed"] if gone else []
    problems += map(str, kept[:SHOWN_MOST])
    if len(kept) > SHOWN_MOST:
        problems.append(f"{len(kept) - SHOWN_MOST:,} more stay dead for the same reason")
    return Done(count, f"{done} {count:,} dead letter{'' if count == 1 else 's'}", problems, cursor)


def _replay(letters: DeadLetters, queue: str, numbers: list[int]) -> tuple[int, list[KeyTaken]]:
    sent, kept = 0, []
    for number in numbers:
        try:
            sent += letters.replay(queue, number)
        except KeyTaken as error:
            kept.append(error)
    return sent, kept


def _purge(letters: DeadLetters, queue: str, numbers: list[int]) -> tuple[int, list[KeyTaken]]:
    return letters.purge(queue, numbers), []


def _is_name(name: str) -> bool:
    queue, _, number = name.rpartition("/")
    return bool(queue) and number.isascii() and number.isdecimal() and len(number) <= 18


def _split(name: str) -> tuple[str, int]:
    queue, _, number = name.rpartition("/")
    return queue, int(number)
