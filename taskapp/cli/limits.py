"""``taskapp limits``: show and change limits of queues and of tasks while nodes run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from taskapp.cli import limit_changes
from taskapp.cli.engine import engine, require_queue
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.target import chosen_app, own_command
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.queue_limits import QueueLimits
from taskapp.engine.snapshot import read_snapshot
from taskapp.errors import did_you_mean
from taskapp.monitor.limit_rows import LimitRow, limit_rows, numbers_text

SETTING = "TASKAPP_QUEUE_LIMITS"
WHAT = "give QUEUE NUMBER, TYPE with --rate, --burst or --at-once, or --weight KEY=NUMBER"


@click.group()
def limits() -> None:
    """Show and change limits of queues and of tasks, for all nodes.

    What is set here applies at once, wins over code and settings, and stays until it is cleared.
    """


@limits.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(*, as_json: bool) -> None:
    """List all limits, where they come from, and how many tasks they block now."""
    declared = chosen_app().settings.queue_limit_table
    with engine() as lent:
        admin = LimitsAdmin(lent.link, lent.prefix)
        by_hand, weights, known = QueueLimits(lent.link, lent.prefix).read(), admin.read_weights(), admin.read_limits()
        found = read_snapshot(lent.link, lent.prefix, tuple({**declared, **by_hand}))
    origins = {queue: (limit, SETTING) for queue, limit in declared.items()}
    origins |= {queue: (limit, "set") for queue, limit in by_hand.items()}
    waiting = {one.name: one.depth + one.delayed + one.blocked for one in found.queues}
    queues = [(queue, limit, waiting[queue], origin) for queue, (limit, origin) in sorted(origins.items())]
    show = _print_json if as_json else _print_tables
    show(queues, limit_rows(known, found.queues), weights)


Queues = list[tuple[str, int, int, str]]
"""Queue, limit, number waiting, origin."""


def _print_json(queues: Queues, rows: list[LimitRow], weights: dict[str, float]) -> None:
    for queue, limit, number, origin in queues:
        say_json({"queue": queue, "limit": limit or None, "waiting": number, "from": origin})
    for row in rows:
        numbers = {"code": dict(row.code), "set": dict(row.set)}
        say_json({"limit": row.name, "kind": row.kind_text, **numbers, "blocked": row.blocked, "from": row.origin})
    for key, weight in sorted(weights.items()):
        say_json({"fair_key": key, "weight": weight, "from": "set"})


def _print_tables(queues: Queues, rows: list[LimitRow], weights: dict[str, float]) -> None:
    of_queues = [(queue, f"{limit:,}" if limit else "none", f"{number:,}", why) for queue, limit, number, why in queues]
    of_tasks = [
        (row.name, row.kind_text, numbers_text(row.code), numbers_text(row.set), f"{row.blocked:,}", row.origin)
        for row in rows
    ]
    tables: dict[tuple[str, ...], Sequence[Sequence[object]]] = {
        ("queue", "limit", "waiting", "from"): of_queues,
        ("limit", "kind", "code", "set", "blocked", "from"): of_tasks,
        ("fair key", "weight", "from"): [(key, f"{weight:g}", "set") for key, weight in sorted(weights.items())],
    }
    shown = [(headings, cells) for headings, cells in tables.items() if cells]
    for number, (headings, cells) in enumerate(shown):
        if number:
            say()
        say_table(headings, cells, kept=headings[:1])
    if not shown:
        say(f"no limits; task types declare them when a node starts, or: {own_command()} limits set QUEUE NUMBER")


@limits.command("set")
@click.argument("name", metavar="[QUEUE | TYPE]", required=False)
@click.argument("number", metavar="[NUMBER]", required=False, type=click.IntRange(min=0, max=10**15))
@click.option("--rate", help="How often tasks of TYPE may start: 100/m, 2/h, 0.5/s; none: no limit.")
@click.option("--burst", type=click.FloatRange(min=1), help="How many may start at once after a pause.")
@click.option("--at-once", help="How many tasks of TYPE, or TYPE/{level}, may run at once; none: no limit.")
@click.option("--weight", "weights", multiple=True, metavar="KEY=NUMBER", help="Turns of a fair key; others have 1.")
def set_(
    name: str | None, number: int | None, rate: str | None, burst: float | None, at_once: str | None,
    weights: tuple[str, ...],
) -> None:  # fmt: skip
    """Change a limit for all nodes, at once and until it is cleared.

    QUEUE NUMBER: at most NUMBER tasks may wait in QUEUE; 0 lifts the limit. TYPE with options: how often tasks of a
    type start, and how many run at once. 'limits list' names them; the name of a level of concurrency has its template,
    as in 'shop.export/{tenant}'.
    """
    of_tasks = (rate, burst, at_once) != (None, None, None)
    if sum((number is not None, of_tasks, bool(weights))) != 1 or (name is None) != bool(weights):
        raise click.UsageError(WHAT)
    wanted_weights = [limit_changes.read_weight(text) for text in weights]
    with engine() as lent:
        admin = LimitsAdmin(lent.link, lent.prefix)
        for key, weight in wanted_weights:
            admin.set_weight(key, weight)
            say(f"fair key {key!r}: weight {weight:g}")
        if name is not None and number is not None:
            _check_queue(name, admin, [one.name for one in read_snapshot(lent.link, lent.prefix, ()).queues])
            QueueLimits(lent.link, lent.prefix).set(name, number)
            say(f"{name}: at most {number:,} tasks may wait" if number else f"{name}: any number of tasks may wait")
        elif name is not None:
            for text in limit_changes.set_numbers(admin, name, rate, burst, at_once):
                say(f"{name}: {text}")


def _check_queue(name: str, admin: LimitsAdmin, used: list[str]) -> None:
    if name not in chosen_app().queue_names() and name not in used and name in admin.read_limits():
        raise click.UsageError(f"{name!r} is a limit of tasks and no queue; use --rate, --burst or --at-once")
    require_queue(name, used)


@limits.command()
@click.argument("name", metavar="[QUEUE | TYPE]", required=False)
@click.option("--weight", "keys", multiple=True, metavar="KEY", help="Let this fair key weigh 1 again.")
def clear(name: str | None, keys: tuple[str, ...]) -> None:
    """Forget what was set: code and TASKAPP_QUEUE_LIMITS decide again."""
    if (name is None) != bool(keys):
        raise click.UsageError("give QUEUE, TYPE or --weight KEY")
    with engine() as lent:
        admin, queues = LimitsAdmin(lent.link, lent.prefix), QueueLimits(lent.link, lent.prefix)
        for key in keys:
            if not admin.clear_weight(key):
                raise _not_set(f"the fair key {key!r}", key, admin.read_weights())
            say(f"fair key {key!r}: weight 1")
        if name is None:
            return
        known = admin.read_limits()
        is_of_tasks = name in known and bool(known[name].set)
        if queues.clear(name):
            limit = chosen_app().settings.queue_limit_table.get(name)
            say(f"{name}: at most {limit:,} tasks may wait, as {SETTING} says" if limit else f"{name}: no limit")
        elif not is_of_tasks:
            set_names = [*queues.read(), *(limit.name for limit in known.values() if limit.set)]
            raise _not_set(repr(name), name, set_names)
        if is_of_tasks:
            admin.clear_limit(name)
            rows = limit_rows({name: known[name]._replace(set={})}, ())
            texts = [f"{row.kind_text} {numbers_text(row.code)}" for row in rows]
            say(f"{name}: {'; '.join(texts)}, as its code says" if texts else f"{name}: as its code says")


def _not_set(what: str, name: str, known: Iterable[str]) -> click.ClickException:
    hint = did_you_mean(name, known)
    return click.ClickException(f"no limit is set for {what}{hint}; see {own_command()} limits list")


@limits.command()
@click.argument("type_", metavar="TYPE")
@click.argument("seconds", type=click.FloatRange(min=0, max=limit_changes.LONGEST_PAUSE_SECONDS))
@click.option("--key", default="", help="The value of its rate_key.")
def pause(type_: str, seconds: float, key: str) -> None:
    """Let no task of TYPE with this key start for SECONDS, on any node; 0 ends a pause.

    TYPE needs a rate_limit. Running tasks go on.
    """
    with engine() as lent:
        admin = LimitsAdmin(lent.link, lent.prefix)
        used = limit_changes.rate_key_of(admin, type_, key)
        admin.pause(type_, used, seconds)
    what = f"{type_} for the key {key!r}" if key else type_
    say(f"{what}: none starts for {seconds:g} s" if seconds else f"{what}: not paused")
