"""``taskapp doctor``: checks a deployment, and adopts the messages that stock Celery workers left."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from taskapp.cli.output import say, say_json
from taskapp.cli.target import chosen_app
from taskapp.errors import BrokerNotFound, TaskappError

if TYPE_CHECKING:
    from taskapp.app.application import Celery
    from taskapp.migrate.adopt import Adopted, Adoption
    from taskapp.monitor.doctor import Finding
    from taskapp.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "error": "red"}
LISTED = 20
"""Maximum number of messages a dry run lists; ``--json`` lists all."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--adopt", is_flag=True, help="Requeue the messages that stopped stock Celery workers had taken.")
@click.option("--dry-run", is_flag=True, help="With --adopt: show what would happen, change nothing.")
@click.option(
    "--merge-priorities",
    is_flag=True,
    help="With --adopt: put stock Celery's messages with priorities 1 to 9, which it takes last and taskapp first, "
    "behind those with priority 0.",
)
@click.option("--force", is_flag=True, help="With --adopt: even if stock workers seem alive; their tasks run twice.")
def doctor(*, as_json: bool, adopt: bool, dry_run: bool, merge_priorities: bool, force: bool) -> None:
    """Check the server, queues and nodes, and report what to fix.

    Exits with 1 if there is an error; warnings do not count.
    """
    if not adopt and (dry_run or merge_priorities or force):
        raise click.UsageError("--dry-run, --merge-priorities and --force need --adopt")
    from taskapp.settings import get_settings

    settings = get_settings()
    if adopt:
        _adopt(settings, as_json=as_json, dry_run=dry_run, merge_priorities=merge_priorities, force=force)
    else:
        _examine(settings, as_json=as_json)


def _connected_app(settings: Settings) -> tuple[Celery, str]:
    """Return the app and the URL of its broker.

    Raises:
        BrokerNotFound: No broker is configured and the embedded server is not running.
    """
    from taskapp.devredis import resolve_broker_url

    broker_url = resolve_broker_url(settings, may_start=False, announce=say)
    app = chosen_app()
    from taskapp.cli.included import import_included

    import_included(app)
    return app, broker_url


# --- examining -----------------------------------------------------------------------------------


def _examine(settings: Settings, *, as_json: bool) -> None:
    from taskapp.monitor.doctor import Finding, examine
    from taskapp.urls import masked

    try:
        app, broker_url = _connected_app(settings)
    except BrokerNotFound as error:
        broker, findings = "", [Finding("broker", "reachable", "error", "no broker found", str(error))]
    else:
        broker, findings = masked(broker_url), examine(app, settings, broker_url)
    worst = max((finding.verdict for finding in findings), key=list(COLOURS).index)
    if as_json:
        shown = [finding._asdict() for finding in findings]
        say_json({"broker": broker, "verdict": worst, "findings": shown})
    else:
        _print_findings(broker, findings)
    sys.exit(1 if worst == "error" else 0)


def _print_findings(broker: str, findings: list[Finding]) -> None:
    if broker:
        say(f"broker {broker}")
    for finding in findings:
        name = finding.check if finding.server == "broker" else f"{finding.server}: {finding.check}"
        _print(finding.verdict, name, finding.found, finding.remedy)


def _print(verdict: str, name: str, found: str, remedy: str = "") -> None:
    say(f" {name:<13} {found}", head=click.style(f"{verdict:<5}", fg=COLOURS[verdict]))
    for number, line in enumerate(remedy.splitlines()):
        say(f"{'':<19} {'->' if number == 0 else '  '} {line}")


# --- adopting ------------------------------------------------------------------------------------


def _adopt(settings: Settings, *, as_json: bool, dry_run: bool, merge_priorities: bool, force: bool) -> None:
    from redis.exceptions import RedisError

    from taskapp.devredis import own_server
    from taskapp.migrate.adopt import Destination, StockWorkersAlive, adopt
    from taskapp.migrate.stock_celery import signs_of_life
    from taskapp.monitor.doctor import connect, reachable, stock_nodes
    from taskapp.urls import masked

    app, broker_url = _connected_app(settings)
    client = connect(broker_url, "TASKAPP_BROKER_URL", own_server(settings))
    with reachable(broker_url, "TASKAPP_BROKER_URL"):
        signs = signs_of_life(client, settings.key_prefix, lambda: stock_nodes(app))
    if signs and not (force or dry_run):
        raise StockWorkersAlive(signs)
    try:
        report = adopt(
            Destination(
                client,
                settings.key_prefix,
                app.queue_names(),
                dry_run,
                merge_priorities,
                creates_queues=bool(app.conf.task_create_missing_queues),
                declared_by="TASKAPP_QUEUES" if app.filled.fills("task_queues") else "task_queues",
            )
        )
    except RedisError as error:
        raise TaskappError(
            f"the Redis at {masked(broker_url)} stopped the adoption: {error}; "
            "each message has moved completely or not at all; run it again to continue"
        ) from error
    if as_json:
        say_json(_as_dict(report, signs, dry_run=dry_run))
    else:
        _print_adoption(report, signs, dry_run=dry_run)
    sys.exit(1 if report.left else 0)


def _as_dict(report: Adoption, signs: list[str], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "stock_workers": signs,
        "adopted": [message._asdict() for message in report.adopted],
        "moved": report.moved,
        "waiting": report.waiting,
        "left": {reason: vars(left) for reason, left in report.left.items()},
    }


def _print_adoption(report: Adoption, signs: list[str], *, dry_run: bool) -> None:
    will = "would be " if dry_run else ""
    for sign in signs:
        _print("warn", "stock workers", sign, "stop it first: its tasks would run twice")
    if dry_run:
        _print_messages(report.adopted)
    for (queue, priority), count in sorted(Counter(message[:2] for message in report.adopted).items()):
        _print("ok", "adopted", f"{count} {will}moved to the front of {queue!r} at priority {priority}")
    for queue, count in report.moved.items():
        _print("ok", "moved", f"{count} {will}moved in {queue!r}: no node looked there, or priorities were merged")
    for queue, counts in report.waiting.items():
        shown = ", ".join(f"{count} at priority {priority}" for priority, count in counts.items())
        _print(
            "warn", "waiting", f"{queue!r} has {shown}: stock Celery takes these last, taskapp first",
            "if you do not want that, run this again with --merge-priorities before nodes start",
        )  # fmt: skip
    for reason, left in report.left.items():
        _print("error", "left", f"{left.count} stay: {reason} ({', '.join(left.tags)})", left.remedy)
    if not (report.adopted or report.moved or report.left):
        _print("ok", "adopted", "no messages left by stock workers")


def _print_messages(messages: list[Adopted]) -> None:
    for message in messages[:LISTED]:
        say(f"{message.queue:<12} {message.priority}  {message.id:<36}  {message.task}")
    if len(messages) > LISTED:
        say(f"… and {len(messages) - LISTED} more; list all with --json")
