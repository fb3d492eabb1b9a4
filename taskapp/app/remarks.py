"""Remarks on a project's own settings: those that weaken a promise, and those without an effect here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from celery.app.defaults import DEFAULTS

from taskapp.app.filling import given_by
from taskapp.app.options import misspelt_options
from taskapp.settings import PREFIX, get_settings_of_environment
from taskapp.transport.transport import is_over_redis

OUR_POOL = "taskapp.worker.pool.pool:TaskPool"
OUR_SCHEDULERS = ("taskapp.beat.scheduler:Scheduler", "taskapp.beat.file_scheduler:FileScheduler")
RUNS_CODE = frozenset({"pickle", "application/x-python-serialize", "yaml", "application/x-yaml"})
"""Formats whose messages can run code when they are read."""


AS_CELERY_SETS = ("broker_url", "result_url")
"""Settings that Celery's own configuration gives: filled in by now."""


class Remark(NamedTuple):
    """What to know about a setting that the project has set."""

    setting: str
    weakens: bool
    """Whether it weakens a promise; otherwise it has no effect."""
    text: str


def _has_code(formats: Any) -> bool:
    return not RUNS_CODE.isdisjoint(formats or ())


WEAKENING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task_acks_late": (lambda value: not value, "a task that a lost node has begun does not run again"),
    "task_reject_on_worker_lost": (
        lambda value: not value, "a task whose child process dies fails at once and does not run again",
    ),
    "worker_pool": (
        lambda value: value != OUR_POOL,
        "this pool has neither coroutines next to threads nor `cpu_bound` children, see docs/worker.md",
    ),
    "accept_content": (_has_code, "those who can write to the broker can run code on every node"),
    "result_accept_content": (_has_code, "those who can write to the result store can run code where results are read"),
    "beat_scheduler": (
        lambda value: value not in OUR_SCHEDULERS,
        "two beats with this scheduler send each job twice, and `taskapp schedules` does not show its jobs",
    ),
}  # fmt: skip
"""Setting to: whether a value weakens a promise; what that means."""

_RECYCLED = "the default pool has no children to replace; set TASKAPP_MAX_TASKS_PER_NODE or TASKAPP_MAX_MEMORY_MB"
_FETCHED = "nodes fetch what they can run at once, see docs/worker.md"
WITHOUT_EFFECT_ON_OUR_POOL = {
    "worker_prefetch_multiplier": _FETCHED,
    "worker_disable_prefetch": _FETCHED,
    "worker_max_tasks_per_child": _RECYCLED,
    "worker_max_memory_per_child": _RECYCLED,
    "worker_soft_shutdown_timeout": "set TASKAPP_DRAIN_SECONDS",
}
LOG_FORMATS = ("worker_log_format", "worker_log_datefmt", "worker_task_log_format", "worker_task_log_datefmt")
WITHOUT_EFFECT_ON_REDIS = {"worker_eta_task_limit": "delayed tasks stay in Redis until they are due"}
_PROTOCOL = "tasks are sent with protocol 2, which Celery 4 and later read"
_LEASES = "leases replace it, see TASKAPP_LEASE_SECONDS"
OPTIONS_WITHOUT_EFFECT = {
    "visibility_timeout": _LEASES,
    **dict.fromkeys(
        ("ack_emulation", "unacked_key", "unacked_index_key", "unacked_mutex_key", "unacked_mutex_expire",
         "unacked_restore_limit"), _LEASES,
    ),
    "queue_order_strategy": "queues are served in the order in which they are declared, see TASKAPP_STARVATION_GUARD",
    "polling_interval": "nodes are woken up",
    "priority_steps": "there are ten priorities, 0 to 9",
    "sep": "it is taskapp's",
}  # fmt: skip
"""Keys of ``broker_transport_options``."""


def _overruled(app: Any) -> Iterator[Remark]:
    """Yield variables that the project's configuration overrules, and what it sets too late."""
    of_environment, given = get_settings_of_environment(), app.filled.given
    for field, one in given.items():
        if field in of_environment.chosen and getattr(of_environment, field) != getattr(app.settings, field):
            yield Remark(f"{PREFIX}{field.upper()}", weakens=False, text=f"the app's configuration sets {one.name}")
    for field, one in given_by(app.conf).items():
        if field not in AS_CELERY_SETS and one.value != (given[field].value if field in given else None):
            yield Remark(one.name, weakens=False, text="it was set after the configuration had been read")


def _expiring(queues: Any) -> Iterator[str]:
    """Yield the names of declared queues that are to expire with the tasks in them."""
    for queue in () if isinstance(queues, Mapping) else queues or ():
        if getattr(queue, "expires", None) or "x-expires" in (getattr(queue, "queue_arguments", None) or {}):
            yield queue.name


NOT_OF_CELERY = frozenset({"skip_checks", "db_reuse_max", "loader", "config_module"})
"""Names after the namespace that are no settings of Celery, and are read by it or its fixups."""
ALIKE = 0.85
"""How much a name must resemble a setting to be taken for a misspelling of it."""


def _misspelt(conf: Any) -> Iterator[Remark]:
    """Yield remarks on keys that resemble a setting but are none.

    Looks at those with the project's namespace; without one, at those in lower case, because others may be a module's
    own names or settings as Celery 3 wrote them.
    """
    prefix = conf.prefix or ""
    known = {f"{prefix}{name}".lower(): name for name in (*DEFAULTS, *NOT_OF_CELERY)}
    for key in {str(key) for mapping in conf.maps[:-1] for key in mapping}:
        if not key.startswith(prefix) or key.lower() in known or key.lower().startswith(f"{prefix}{PREFIX}".lower()):
            continue
        if not prefix and not key.islower():
            continue
        if close := get_close_matches(key.lower(), known, n=1, cutoff=ALIKE):
            meant = close[0].upper() if prefix.isupper() else f"{prefix}{known[close[0]]}"
            yield Remark(key, weakens=False, text=f"Celery has no setting of that name; did you mean {meant}?")


def _misspelt_in_types(app: Any) -> Iterator[Remark]:
    for name, task in sorted(app.tasks.items()):
        for option, meant in misspelt_options(type(task)):
            text = f"Celery has no option of that name; did you mean {meant}?"
            yield Remark(f"{option} of the task type {name!r}", weakens=False, text=text)


def remarks_on(app: Any) -> list[Remark]:
    """Return remarks on the settings that the project of ``app`` has set, those that weaken a promise first."""
    return sorted(_remarks(app), key=lambda remark: not remark.weakens)


def _without_effect(app: Any, *, over_redis: bool) -> dict[str, str]:
    """Return the settings of Celery that have no effect in ``app``, and why."""
    unused: dict[str, str] = {} if app.conf.task_protocol == 2 else {"task_protocol": _PROTOCOL}
    if app.conf.worker_pool == OUR_POOL:
        unused |= WITHOUT_EFFECT_ON_OUR_POOL
    if app.settings.log_format == "json":
        unused |= dict.fromkeys(LOG_FORMATS, "TASKAPP_LOG_FORMAT asks for lines in JSON")
    if over_redis:
        unused |= WITHOUT_EFFECT_ON_REDIS
    return unused


def _remarks(app: Any) -> Iterator[Remark]:
    conf = app.conf
    for setting, (weakens, text) in WEAKENING.items():
        if app.sets(setting) and weakens(conf[setting]):
            yield Remark(setting, weakens=True, text=text)
    yield from _misspelt(conf)
    yield from _misspelt_in_types(app)
    over_redis = is_over_redis(conf.broker_url)
    for setting, text in _without_effect(app, over_redis=over_redis).items():
        # Celery's commands set some of them to their defaults.
        if app.sets(setting) and conf[setting] != DEFAULTS[setting]:
            yield Remark(setting, weakens=False, text=text)
    yield from _overruled(app)
    for name in _expiring(conf.task_queues) if over_redis else ():
        text = f"the queue {name!r} keeps its tasks; give tasks `expires=…` instead"
        yield Remark("task_queues[expires]", weakens=False, text=text)
    for option, text in OPTIONS_WITHOUT_EFFECT.items() if over_redis else ():
        if option in app.filled.given_options:
            yield Remark(f"broker_transport_options[{option!r}]", weakens=False, text=text)
