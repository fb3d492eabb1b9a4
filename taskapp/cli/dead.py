"""``taskapp dead``: list, show, replay and purge dead letters."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from taskapp.app.masks import Masked, redact
from taskapp.cli.engine import engine, require_queue
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.steps import Steps
from taskapp.cli.target import chosen_app, own_command
from taskapp.engine.dead_letters import PAGE, REASONS, DeadLetter, DeadLetters
from taskapp.errors import KeyTaken
from taskapp.transport.codec import Unreadable, edit_arguments, read_arguments

Command = Callable[..., Any]
SHOWN_MOST = 20
"""Maximum number of letters of which a replay tells why they stay."""


@click.group()
def dead() -> None:
    """List, show, replay and purge dead letters.

    A dead letter is the message of a task that failed permanently or could not run: it failed, was
    rejected, crashed the processes that ran it, is unreadable, or has a task type that no node has.
    Its name is its queue and number, default/17; the id of its task will do as well.
    """


def _filters(command: Command) -> Command:
    for option in (
        click.option("--queue", help="Only letters of this queue."),
        click.option("--reason", type=click.Choice(REASONS), help="Only letters with this reason."),
        click.option("--task", help="Only letters of this task type."),
    ):
        command = option(command)
    return command


@dead.command("list")
@_filters
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1), help="Maximum to list.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, with the raw, unmasked message in Base64.")
def list_(queue: str | None, reason: str | None, task: str | None, limit: int, *, as_json: bool) -> None:
    """List dead letters, newest first."""
    with engine() as lent:
        counts = lent.dead_letters.count()
        require_queue(queue, [name for name, _ in counts])
        found = [_seen(letter) for letter in lent.dead_letters.find(queue, reason, task, limit)]
        total = sum(counts.values())
    if as_json:
        for letter in found:
            say_json(_as_json(letter))
        return
    _print_table(found)
    say(f"{len(found)} of {total} dead letters" if total else "no dead letters")


def _print_table(letters: Iterable[DeadLetter]) -> None:
    say_table(
        ("letter", "reason", "task", "id", "redelivered", "buried at", "error"),
        [(one.name, one.reason, one.task, one.id, one.deliveries, _when(one), one.error) for one in letters],
        kept=("letter", "id"),
        expendable=("redelivered", "buried at"),
    )


@dead.command()
@click.argument("name")
@click.option("--raw", is_flag=True, help="Write the message itself, byte for byte and unmasked.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with masked arguments.")
def show(name: str, *, raw: bool, as_json: bool) -> None:
    """Show one dead letter, with masked arguments hidden.

    NAME is that of the letter, default/17, or the id of its task, whose latest letter is shown.
    """
    with engine() as lent:
        letter = _get(lent.dead_letters, name)
    if raw:
        sys.stdout.buffer.write(letter.raw)
        return
    about = _shown(letter)
    if as_json:
        say_json(about)
        return
    shown: dict[str, Any] = {
        "reason": letter.reason, "error": about["error"], "task": letter.task, "id": letter.id,
        "priority": letter.priority, "deliveries": letter.deliveries, "crashes": letter.crashes,
        "buried at": _when(letter), "node": letter.node, "message": f"{len(letter.raw)} bytes",
    }  # fmt: skip
    if about["unreadable"]:
        shown["args"] = f"unreadable: {about['unreadable']}"
    else:
        shown |= {"args": json.dumps(about["args"]), "kwargs": json.dumps(about["kwargs"])}
    for field, value in shown.items():
        say(value, head=f"{field:<12}")


@dead.command()
@click.argument("names", nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="All letters that match, instead of named ones.")
@click.option("--to", "to_queue", help="Send to this queue instead of the original one.")
@click.option("--args", "new_args", help="JSON list of arguments to send instead.")
@click.option("--kwargs", "new_kwargs", help="JSON object of keyword arguments to send instead.")
def replay(
    names: tuple[str, ...], queue: str | None, reason: str | None, task: str | None,
    to_queue: str | None, new_args: str | None, new_kwargs: str | None, *, everything: bool,
) -> None:  # fmt: skip
    """Send dead letters again, under the same ids; their attempts count from zero again.

    A letter whose unique key another task has stays dead. Exits with 1 if one stays.
    """
    if to_queue and to_queue not in chosen_app().queue_names():
        queues = ", ".join(chosen_app().queue_names())
        raise click.BadParameter(f"no queue named {to_queue!r}; choose one of {queues}", param_hint="--to")
    args, kwargs = _json(new_args, list, "--args"), _json(new_kwargs, dict, "--kwargs")
    sent, kept = 0, []
    with engine() as lent:
        letters = lent.dead_letters
        chosen = _chosen(letters, names, queue, reason, task, everything=everything)
        for place in Steps("checked {} dead letters").count(chosen):
            blob = None
            if args is not None or kwargs is not None:
                letter = letters.get(*place)
                blob = _edited(letter, args, kwargs) if letter is not None else None
                if blob is None:
                    continue
            try:
                sent += letters.replay(*place, to_queue, blob)
            except KeyTaken as error:
                kept.append(str(error))
    _say_replayed(sent, kept)


def _say_replayed(sent: int, kept: list[str]) -> None:
    if len(kept) == 1 and not sent:
        raise click.ClickException(kept[0])
    for why in kept[:SHOWN_MOST]:
        say(why, err=True)
    say(f"sent {sent} dead letters again")
    if kept:
        raise click.ClickException(f"{len(kept)} dead letters stay: other tasks have their unique keys")


@dead.command()
@click.argument("names", nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="All letters that match, instead of named ones.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def purge(
    names: tuple[str, ...], queue: str | None, reason: str | None, task: str | None, *, everything: bool, yes: bool
) -> None:
    """Delete dead letters permanently."""
    with engine() as lent:
        letters = lent.dead_letters
        if not yes:
            counted = Steps("counted {} dead letters")
            number = sum(1 for _ in counted.count(_chosen(letters, names, queue, reason, task, everything=everything)))
            if number:
                click.confirm(f"delete {number} dead letters permanently?", abort=True)
        chosen = _chosen(letters, names, queue, reason, task, everything=everything)
        places, purged = Steps("purged {} dead letters").count(chosen), 0
        while some := list(islice(places, PAGE)):
            by_queue: dict[str, list[int]] = {}
            for one_queue, one_number in some:
                by_queue.setdefault(one_queue, []).append(one_number)
            purged += sum(letters.purge(one, numbers) for one, numbers in by_queue.items())
    say(f"purged {purged} dead letters")


def _chosen(
    letters: DeadLetters, names: tuple[str, ...], queue: str | None, reason: str | None, task: str | None,
    *, everything: bool,
) -> Iterable[tuple[str, int]]:  # fmt: skip
    """Return queue and number of the letters a command is about."""
    if bool(names) == everything:
        raise click.UsageError("name letters (default/17), or give --all, optionally with --queue, --reason or --task")
    if names:
        return [(letter.queue, letter.number) for letter in (_get(letters, name) for name in names)]
    require_queue(queue, [name for name, _ in letters.count()])
    return ((letter.queue, letter.number) for letter in letters.walk(queue, reason, task))


def _get(letters: DeadLetters, name: str) -> DeadLetter:
    queue, _, number = name.rpartition("/")
    letter = letters.get(queue, int(number)) if queue and number.isdecimal() else None
    letter = letter or letters.of_task(name)
    if letter is None:
        raise click.ClickException(f"no dead letter {name!r}; '{own_command()} dead list' names them")
    return letter


def _redacted(letter: DeadLetter) -> Masked | None:
    app = chosen_app()

    return redact(app, letter.task, lambda: read_arguments(letter.raw))


def _seen(letter: DeadLetter) -> DeadLetter:
    """Return ``letter`` with masked arguments removed from its error; the message stays as it is."""
    seen = _redacted(letter)
    return letter if seen is None else letter._replace(error=seen.strike(letter.error))


def _edited(letter: DeadLetter, args: list[Any] | None, kwargs: dict[str, Any] | None) -> bytes:
    try:
        return edit_arguments(letter.raw, args, kwargs)
    except Unreadable as error:
        raise click.ClickException(f"{letter.name} cannot be edited: {error}") from error


def _json(text: str | None, kind: type, option: str) -> Any:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=option) from error
    if not isinstance(value, kind):
        raise click.BadParameter(f"must be a JSON {'list' if kind is list else 'object'}", param_hint=option)
    return value


def _when(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.buried_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _shown(letter: DeadLetter) -> dict[str, Any]:
    """Return the fields of ``dead list --json``, with masked arguments instead of the raw message."""
    fields = {name: value for name, value in _seen(letter)._asdict().items() if name != "raw"}
    args, kwargs, unreadable = None, None, ""
    try:
        args, kwargs = read_arguments(letter.raw)
        if (seen := _redacted(letter)) is not None:
            args, kwargs = seen.args, seen.kwargs
    except Unreadable as error:
        unreadable = str(error)
    about = {"args": args, "kwargs": kwargs, "unreadable": unreadable, "message_bytes": len(letter.raw)}
    return {"letter": letter.name, **fields, **about}


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    fields = {name: value for name, value in letter._asdict().items() if name != "raw"}
    return {"letter": letter.name, **fields, "raw_base64": base64.b64encode(letter.raw).decode()}
