"""What the two dashboards show."""

from __future__ import annotations

from look import Panel, Row
from queries import of, per_second, quantile, within

QUEUE, TYPE, RUNNING = 'queue=~"$queue"', 'type=~"$type"', 'state="running"'
QUANTILES = ((0.5, "half of them"), (0.95, "95 %"), (0.99, "99 %"))


def runs(*whats: str) -> tuple[tuple[str, str], ...]:
    """Return the rates of what happens to all tasks."""
    return tuple((f"sum({per_second(f'taskapp_tasks_{what}_total')})", what) for what in whats)


def by_type(what: str) -> str:
    """Return the rate of what happens to tasks, by type; the ten with the most."""
    return f"topk(10, sum by (type) ({per_second(f'taskapp_tasks_{what}_total', QUEUE, TYPE)}))"


FAILED, COMPLETED = (
    f"sum by (type) ({per_second(f'taskapp_tasks_{what}_total', QUEUE, TYPE)})" for what in ("failed", "completed")
)
FIRING = 'ALERTS{alertname=~"Taskapp.*", alertstate="firing", job=~"$job"}'
OLDEST = f"max by (queue) ({of('taskapp_queue_oldest_seconds')})"

OVERVIEW = (
    Row("Now", (
        Panel(
            "Broker", "Whether the broker answers the exporter.", "bool_on_off",
            ((f"min({of('taskapp_broker_up')})", "up"),), "stat", 3, limits=(1,), is_low_bad=True,
        ),
        Panel(
            "Alerts", "Alerts that fire.", "none",
            ((f"count({FIRING}) or vector(0)", "firing"),),
            "stat", 3, limits=(1,),
        ),
        Panel(
            "Nodes", "Nodes that take tasks.", "none",
            ((f"sum({of('taskapp_nodes', RUNNING)})", "running"),), "stat", 3, limits=(1,), is_low_bad=True,
        ),
        Panel(
            "Slots used", "Of all the tasks that nodes can run at once.", "percentunit",
            ((f"sum({of('taskapp_slots_used')}) / sum({of('taskapp_slots')})", "used"),), "stat", 3, limits=(0.8, 0.95),
        ),
        Panel(
            "Waiting", "Tasks that could run at once if there were more slots.", "none",
            ((f"sum({of('taskapp_queue_depth')})", "ready"),), "stat", 3,
        ),
        Panel(
            "Oldest of its objective", "The queue that is worst: how much of its objective its oldest task has waited.",
            "percentunit",
            ((f"max({OLDEST} / on (queue) max by (queue) (taskapp:queue_objective_seconds))", "waited"),),
            "stat", 3, limits=(0.8, 1),
        ),
        Panel(
            "Beat is late by", "For how long what is due was not queued.", "s",
            ((f"max({of('taskapp_beat_lateness_seconds')})", "late"),), "stat", 3, limits=(5, 20),
        ),
        Panel(
            "Dead letters", "Messages that could not be read or run.", "none",
            ((f"sum({of('taskapp_dead_letters')})", "dead"),), "stat", 3, limits=(1,),
        ),
    )),
    Row("Tasks", (
        Panel("Throughput", "Deliveries to nodes, and runs that succeeded.", "ops", runs("received", "completed")),
        Panel("What goes wrong", "By what became of it.", "ops", runs("failed", "retried", "crashed", "dead")),
        Panel(
            "Wait until the first start", "From submit, for tasks without a due time of their own.", "s",
            tuple((quantile(share, "taskapp_task_queue_wait_seconds"), legend) for share, legend in QUANTILES),
        ),
        Panel(
            "Messages", "Where messages are.", "none",
            (
                (f"sum({of('taskapp_queue_depth')})", "ready"),
                (f"sum({of('taskapp_messages_held')})", "held by nodes"),
                (f"sum({of('taskapp_queue_delayed')})", "delayed"),
                (f"sum({of('taskapp_queue_parked')})", "parked"),
            ),
        ),
        Panel(
            "Ended otherwise", "Revoked or expired, rejected, ignored or replaced.", "ops",
            runs("revoked", "rejected", "ignored"),
        ),
        Panel(
            "Run time", "Of successful runs.", "s",
            tuple((quantile(share, "taskapp_task_run_seconds"), legend) for share, legend in QUANTILES),
        ),
    )),
    Row("Nodes and beat", (
        Panel(
            "Nodes", "A lost one's lease has ended; what it held is about to be given back.", "none",
            ((f"sum by (state) ({of('taskapp_nodes')})", "{{state}}"),), is_stacked=True,
        ),
        Panel(
            "Slots", "Tasks that nodes run, of those they can run at once.", "none",
            (
                (f"sum by (kind) ({of('taskapp_slots_used')})", "{{kind}} used"),
                (f"sum by (kind) ({of('taskapp_slots')})", "{{kind}}"),
            ),
        ),
        Panel(
            "Leases lost", "Of nodes that died, hung or were cut off, within five minutes.", "none",
            ((f"sum({within('5m', 'taskapp_leases_lost_total')})", "lost"),),
        ),
        Panel(
            "Beat", "How late it is, and when it last queued what was due.", "s",
            (
                (f"max({of('taskapp_beat_lateness_seconds')})", "late by"),
                (f"time() - max({of('taskapp_beat_last_tick_timestamp_seconds')} > 0)", "since the last tick"),
            ),
        ),
        Panel(
            "Schedules", "A broken one is set aside with its error.", "none",
            ((f"sum by (state) ({of('taskapp_schedules')})", "{{state}}"),),
        ),
        Panel(
            "Alerts", "What fires, and for how many queues, task types or brokers.", "none",
            ((f"sum by (alertname) ({FIRING})", "{{alertname}}"),),
            is_stacked=True,
        ),
    )),
    Row("Redis", (
        Panel(
            "Memory", "What it uses, and what it may use; no limit, no line.", "bytes",
            (
                (f"max({of('taskapp_redis_memory_bytes')})", "used"),
                (f"max({of('taskapp_redis_memory_limit_bytes')} > 0)", "limit"),
            ),
            width=6,
        ),
        Panel(
            "Saved", "Whether the last snapshot or append failed, and changes that are not on disk.", "none",
            (
                (f"max({of('taskapp_redis_persistence_failing')})", "failing"),
                (f"max({of('taskapp_redis_unsaved_changes')})", "unsaved changes"),
            ),
            width=6,
        ),
        Panel(
            "Evicted keys", "Thrown away to stay within the limit: tasks may be among them.", "ops",
            ((f"sum({per_second('taskapp_redis_evicted_keys_total')})", "evicted"),), width=6,
        ),
        Panel(
            "Cost of a scrape", "How long the exporter takes to read all this.", "s",
            ((f"max({of('taskapp_scrape_seconds')})", "taken"),),
            width=6,
        ),
    )),
    Row("History", (
        Panel(
            "Wait to be written", "Finished tasks; 0 where no history is kept.", "none",
            ((f"sum({of('taskapp_history_waiting')})", "waiting"),),
        ),
        Panel(
            "Oldest of them", "For how long the first has waited.", "s",
            ((f"max({of('taskapp_history_oldest_seconds')})", "oldest"),),
        ),
        Panel(
            "Not written", "Too many before anybody wrote them, or set aside as they are unreadable, a second.", "ops",
            (
                (f"sum({per_second('taskapp_history_dropped_total')})", "too many"),
                (f"sum({per_second('taskapp_history_aside_total')})", "set aside"),
            ),
        ),
    )),
)  # fmt: skip

TASKS = (
    Row("Queues", (
        Panel(
            "Waiting", "Ready messages.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_depth', QUEUE)})", "{{queue}}"),),
        ),
        Panel(
            "Oldest", "For how long the oldest ready task has waited.", "s",
            ((f"max by (queue) ({of('taskapp_queue_oldest_seconds', QUEUE)})", "{{queue}}"),),
        ),
        Panel(
            "Oldest of its objective", "Over 100 % it is too old.", "percentunit",
            ((
                f"max by (queue) ({of('taskapp_queue_oldest_seconds', QUEUE)}) "
                "/ on (queue) max by (queue) (taskapp:queue_objective_seconds)", "{{queue}}",
            ),),
            limits=(0.8, 1),
        ),
        Panel(
            "Waiting, by priority", "9 goes first.", "none",
            ((f"sum by (priority) ({of('taskapp_queue_depth', QUEUE)})", "priority {{priority}}"),), is_stacked=True,
        ),
        Panel(
            "Wait until the first start, 95 %", "From submit, for tasks without a due time of their own.", "s",
            ((quantile(0.95, "taskapp_task_queue_wait_seconds", "queue", QUEUE), "{{queue}}"),),
        ),
        Panel(
            "Nodes", "Nodes that take from the queue.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_nodes', QUEUE)})", "{{queue}}"),),
        ),
        Panel(
            "Delayed", "Messages that wait for their time.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_delayed', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Delayed tasks are late by", "Since when the first of them is due.", "s",
            ((f"max by (queue) ({of('taskapp_queue_delayed_late_seconds', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Parked", "Messages that wait for a node with their task type.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_parked', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Parked for", "How long the first of them has waited.", "s",
            ((f"max by (queue) ({of('taskapp_queue_parked_oldest_seconds', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Dead letters", "Messages that could not be read or run, by reason.", "none",
            ((f"sum by (queue, reason) ({of('taskapp_dead_letters', QUEUE)}) > 0", "{{queue}}, {{reason}}"),), width=12,
        ),
        Panel(
            "Dead letters dropped", "Too many of a kind: these are lost.", "ops",
            ((f"sum by (reason) ({per_second('taskapp_dead_letters_dropped_total')})", "{{reason}}"),), width=12,
        ),
    )),
    Row("Task types", (
        Panel("Succeed", "Runs a second; the ten types with the most.", "ops", ((by_type("completed"), "{{type}}"),)),
        Panel(
            "Fail for good", "Tasks a second; the ten types with the most.", "ops",
            ((by_type("failed"), "{{type}}"),),
        ),
        Panel(
            "Share that fails", "Of the tasks that ended.", "percentunit",
            ((f"topk(10, {FAILED} / ({FAILED} + {COMPLETED}) >= 0)", "{{type}}"),), limits=(0.1,),
        ),
        Panel(
            "Retried", "Runs a second that will be tried again; the ten types with the most.", "ops",
            ((by_type("retried"), "{{type}}"),),
        ),
        Panel(
            "Crashed", "Runs a second that ended with their process; the ten types with the most.", "ops",
            ((by_type("crashed"), "{{type}}"),),
        ),
        Panel(
            "Delivered", "To nodes, a second; the ten types with the most.", "ops",
            ((by_type("received"), "{{type}}"),),
        ),
        Panel(
            "Run time, half of the runs", "Of successful runs; the ten slowest types.", "s",
            ((f"topk(10, {quantile(0.5, 'taskapp_task_run_seconds', 'type', TYPE)} >= 0)", "{{type}}"),),
        ),
        Panel(
            "Run time, 95 % of the runs", "Of successful runs; the ten slowest types.", "s",
            ((f"topk(10, {quantile(0.95, 'taskapp_task_run_seconds', 'type', TYPE)} >= 0)", "{{type}}"),),
        ),
        Panel(
            "Busy", "Slots that a type keeps busy on average; the ten types with the most.", "none",
            ((f"topk(10, sum by (type) ({per_second('taskapp_task_run_seconds_sum', TYPE)}))", "{{type}}"),),
        ),
    )),
)  # fmt: skip
