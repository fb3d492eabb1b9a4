"""What the two dashboards show."""

from __future__ import annotations

from look import Panel, Row
from queries import of, per_second, quantile, within

QUEUE, TYPE, RUNNING = 'queue=~"$queue"', 'type=~"$type"', 'state="running"'
QUANTILES = ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))


def runs(*whats: str) -> tuple[tuple[str, str], ...]:
    """Return the rates of the given events over all tasks."""
    return tuple((f"sum({per_second(f'taskapp_tasks_{what}_total')})", what) for what in whats)


def by_type(what: str) -> str:
    """Return the rate of an event by task type, for the ten busiest types."""
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
            "Alerts", "Firing alerts.", "none",
            ((f"count({FIRING}) or vector(0)", "firing"),),
            "stat", 3, limits=(1,),
        ),
        Panel(
            "Nodes", "Nodes that take tasks.", "none",
            ((f"sum({of('taskapp_nodes', RUNNING)})", "running"),), "stat", 3, limits=(1,), is_low_bad=True,
        ),
        Panel(
            "Slots used", "Share of the tasks that nodes can run at once.", "percentunit",
            ((f"sum({of('taskapp_slots_used')}) / sum({of('taskapp_slots')})", "used"),), "stat", 3, limits=(0.8, 0.95),
        ),
        Panel(
            "Waiting", "Tasks that could run at once if there were more slots.", "none",
            ((f"sum({of('taskapp_queue_depth')})", "ready"),), "stat", 3,
        ),
        Panel(
            "Age against objective", "Worst queue: age of its oldest task as a share of its objective.", "percentunit",
            ((f"max({OLDEST} / on (queue) max by (queue) (taskapp:queue_objective_seconds))", "waited"),),
            "stat", 3, limits=(0.8, 1),
        ),
        Panel(
            "Beat lateness", "How long the earliest due tick is overdue.", "s",
            ((f"max({of('taskapp_beat_lateness_seconds')})", "late"),), "stat", 3, limits=(5, 20),
        ),
        Panel(
            "Dead letters", "Messages that failed, or could not be read or run.", "none",
            ((f"sum({of('taskapp_dead_letters')})", "dead"),), "stat", 3, limits=(1,),
        ),
    )),
    Row("Tasks", (
        Panel("Throughput", "Deliveries to nodes, and successful runs.", "ops", runs("received", "completed")),
        Panel("Failures", "Failed tasks and runs, by kind.", "ops", runs("failed", "retried", "crashed", "dead")),
        Panel(
            "Wait to start", "Time from when a task may run to its start.", "s",
            tuple((quantile(share, "taskapp_task_queue_wait_seconds"), legend) for share, legend in QUANTILES),
        ),
        Panel(
            "Messages", "Number of messages, by place.", "none",
            (
                (f"sum({of('taskapp_queue_depth')})", "ready"),
                (f"sum({of('taskapp_messages_held')})", "held by nodes"),
                (f"sum({of('taskapp_queue_delayed')})", "delayed"),
                (f"sum({of('taskapp_queue_parked')})", "parked"),
            ),
        ),
        Panel(
            "Other outcomes", "Revoked or expired, rejected, ignored or replaced.", "ops",
            runs("revoked", "rejected", "ignored"),
        ),
        Panel(
            "Run time", "Duration of successful runs.", "s",
            tuple((quantile(share, "taskapp_task_run_seconds"), legend) for share, legend in QUANTILES),
        ),
    )),
    Row("Nodes and beat", (
        Panel(
            "Nodes", "A lost node's lease has expired; its messages are about to return to their queues.", "none",
            ((f"sum by (state) ({of('taskapp_nodes')})", "{{state}}"),), is_stacked=True,
        ),
        Panel(
            "Slots", "Tasks that nodes run, and how many they can run at once.", "none",
            (
                (f"sum by (kind) ({of('taskapp_slots_used')})", "{{kind}} used"),
                (f"sum by (kind) ({of('taskapp_slots')})", "{{kind}}"),
            ),
        ),
        Panel(
            "Leases lost", "Leases of nodes that died, hung or were cut off, within five minutes.", "none",
            ((f"sum({within('5m', 'taskapp_leases_lost_total')})", "lost"),),
        ),
        Panel(
            "Beat", "How late beat is, and how long ago it last queued due ticks.", "s",
            (
                (f"max({of('taskapp_beat_lateness_seconds')})", "late by"),
                (f"time() - max({of('taskapp_beat_last_tick_timestamp_seconds')} > 0)", "since the last tick"),
            ),
        ),
        Panel(
            "Schedules", "Schedules by state; a broken one was set aside with its error.", "none",
            ((f"sum by (state) ({of('taskapp_schedules')})", "{{state}}"),),
        ),
        Panel(
            "Alerts", "Firing alerts, and for how many queues, task types or brokers.", "none",
            ((f"sum by (alertname) ({FIRING})", "{{alertname}}"),),
            is_stacked=True,
        ),
    )),
    Row("Redis", (
        Panel(
            "Memory", "Memory that Redis uses, and its limit if it has one.", "bytes",
            (
                (f"max({of('taskapp_redis_memory_bytes')})", "used"),
                (f"max({of('taskapp_redis_memory_limit_bytes')} > 0)", "limit"),
            ),
            width=6,
        ),
        Panel(
            "Persistence", "Whether the last snapshot or AOF write failed, and changes not on disk.", "none",
            (
                (f"max({of('taskapp_redis_persistence_failing')})", "failing"),
                (f"max({of('taskapp_redis_unsaved_changes')})", "unsaved changes"),
            ),
            width=6,
        ),
        Panel(
            "Evicted keys", "Keys evicted to stay within the memory limit; tasks may be among them.", "ops",
            ((f"sum({per_second('taskapp_redis_evicted_keys_total')})", "evicted"),), width=6,
        ),
        Panel(
            "Scrape time", "How long the exporter takes to read the broker.", "s",
            ((f"max({of('taskapp_scrape_seconds')})", "taken"),),
            width=6,
        ),
    )),
    Row("History", (
        Panel(
            "Waiting to be written", "Finished tasks not yet in the history; 0 if no history is kept.", "none",
            ((f"sum({of('taskapp_history_waiting')})", "waiting"),),
        ),
        Panel(
            "Oldest unwritten", "How long the oldest of them has waited.", "s",
            ((f"max({of('taskapp_history_oldest_seconds')})", "oldest"),),
        ),
        Panel(
            "Not written", "Tasks per second dropped over the backlog limit, or set aside as unreadable.", "ops",
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
            "Oldest", "How long the oldest ready task has waited.", "s",
            ((f"max by (queue) ({of('taskapp_queue_oldest_seconds', QUEUE)})", "{{queue}}"),),
        ),
        Panel(
            "Age against objective", "Age of the oldest task; over 100 %, it misses the objective.", "percentunit",
            ((
                f"max by (queue) ({of('taskapp_queue_oldest_seconds', QUEUE)}) "
                "/ on (queue) max by (queue) (taskapp:queue_objective_seconds)", "{{queue}}",
            ),),
            limits=(0.8, 1),
        ),
        Panel(
            "Waiting, by priority", "Ready messages; priority 9 runs first.", "none",
            ((f"sum by (priority) ({of('taskapp_queue_depth', QUEUE)})", "priority {{priority}}"),), is_stacked=True,
        ),
        Panel(
            "Wait to start, 95 %", "Time from when a task may run to its start.", "s",
            ((quantile(0.95, "taskapp_task_queue_wait_seconds", "queue", QUEUE), "{{queue}}"),),
        ),
        Panel(
            "Nodes", "Nodes that consume from the queue.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_nodes', QUEUE)})", "{{queue}}"),),
        ),
        Panel(
            "Delayed", "Messages that wait until they are due.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_delayed', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Delayed tasks late by", "How long the earliest delayed message is overdue.", "s",
            ((f"max by (queue) ({of('taskapp_queue_delayed_late_seconds', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Parked", "Messages that wait for a node with their task type.", "none",
            ((f"sum by (queue) ({of('taskapp_queue_parked', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Parked for", "How long the oldest parked message has waited.", "s",
            ((f"max by (queue) ({of('taskapp_queue_parked_oldest_seconds', QUEUE)})", "{{queue}}"),), width=6,
        ),
        Panel(
            "Blocked", "Messages that a limit does not let run yet, by limit.", "none",
            ((f"sum by (limit, kind) ({of('taskapp_limit_blocked')}) > 0", "{{limit}}, {{kind}}"),), width=8,
        ),
        Panel(
            "Dead letters", "Messages that failed, or could not be read or run, by reason.", "none",
            ((f"sum by (queue, reason) ({of('taskapp_dead_letters', QUEUE)}) > 0", "{{queue}}, {{reason}}"),), width=8,
        ),
        Panel(
            "Dead letters dropped", "Letters over the limit of their queue and reason; they are lost.", "ops",
            ((f"sum by (reason) ({per_second('taskapp_dead_letters_dropped_total')})", "{{reason}}"),), width=8,
        ),
    )),
    Row("Task types", (
        Panel("Succeeded", "Runs per second; the ten busiest types.", "ops", ((by_type("completed"), "{{type}}"),)),
        Panel(
            "Failed permanently", "Tasks per second; the ten types with the most.", "ops",
            ((by_type("failed"), "{{type}}"),),
        ),
        Panel(
            "Failure rate", "Share of ended tasks that failed.", "percentunit",
            ((f"topk(10, {FAILED} / ({FAILED} + {COMPLETED}) >= 0)", "{{type}}"),), limits=(0.1,),
        ),
        Panel(
            "Retried", "Runs per second that will be retried; the ten types with the most.", "ops",
            ((by_type("retried"), "{{type}}"),),
        ),
        Panel(
            "Crashed", "Runs per second whose process died; the ten types with the most.", "ops",
            ((by_type("crashed"), "{{type}}"),),
        ),
        Panel(
            "Delivered", "Deliveries to nodes per second; the ten busiest types.", "ops",
            ((by_type("received"), "{{type}}"),),
        ),
        Panel(
            "Run time, median", "Duration of successful runs; the ten slowest types.", "s",
            ((f"topk(10, {quantile(0.5, 'taskapp_task_run_seconds', 'type', TYPE)} >= 0)", "{{type}}"),),
        ),
        Panel(
            "Run time, 95 %", "Duration of successful runs; the ten slowest types.", "s",
            ((f"topk(10, {quantile(0.95, 'taskapp_task_run_seconds', 'type', TYPE)} >= 0)", "{{type}}"),),
        ),
        Panel(
            "Busy slots", "Slots a type keeps busy on average; the ten busiest types.", "none",
            ((f"topk(10, sum by (type) ({per_second('taskapp_task_run_seconds_sum', TYPE)}))", "{{type}}"),),
        ),
    )),
)  # fmt: skip
