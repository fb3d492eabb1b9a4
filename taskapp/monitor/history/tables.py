"""SQL tables of finished tasks. Any change to them needs a new ``LAYOUT`` number."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, SmallInteger, String, Table, Text

LAYOUT = 1

BINARY: dict[str, Any] = {
    "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4", "mariadb_collate": "utf8mb4_bin",
}  # fmt: skip
"""Names are case-sensitive, as everywhere else."""

metadata = MetaData()

layout = Table(
    "taskapp_history_layout", metadata,
    Column("layout", Integer, primary_key=True, autoincrement=False),
    **BINARY,
)  # fmt: skip

tasks = Table(
    "taskapp_history", metadata,
    # Key by time and id: a task reported twice stays one row, and pages follow the key.
    Column("finished_us", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(255), primary_key=True),
    Column("type", String(255), nullable=False),
    Column("queue", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("node", String(255), nullable=False),
    Column("sent_at", Double),
    Column("started_at", Double),
    Column("run_seconds", Double),
    Column("attempts", Integer, nullable=False),
    Column("args", Text, nullable=False),
    Column("kwargs", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("root_id", String(255), nullable=False),
    Column("parent_id", String(255), nullable=False),
    Column("group_id", String(255), nullable=False),
    Column("schedule", String(255), nullable=False),
    # Last, so that reading the other columns does not read past it.
    Column("traceback", Text, nullable=False),
    Index("taskapp_history_id", "id"),
    # Queried for one state at a time, they cover every search in list order; see search.of_states.
    Index("taskapp_history_state", "state", "finished_us"),
    Index("taskapp_history_type", "type", "state", "finished_us"),
    Index("taskapp_history_queue", "queue", "state", "finished_us"),
    Index("taskapp_history_both", "type", "queue", "state", "finished_us"),
    **BINARY,
)  # fmt: skip
