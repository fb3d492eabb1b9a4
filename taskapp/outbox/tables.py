"""The SQL table of an outbox; the model of ``taskapp.django`` has the same columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, String, Table, Text
from sqlalchemy.dialects.mysql import LONGTEXT

from taskapp.outbox.rows import TABLE

BINARY: dict[str, Any] = {
    "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4", "mariadb_collate": "utf8mb4_bin",
}  # fmt: skip
"""Ids are case-sensitive, as everywhere else."""

metadata = MetaData()

table = Table(
    TABLE, metadata,
    Column("id", String(255), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("task", String(255), nullable=False),
    Column("queue", String(255), nullable=False),
    Column("size", Integer, nullable=False),
    Column("claimed_until_us", BigInteger, nullable=False, server_default="0"),
    Column("refused", SmallInteger, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("error", Text().with_variant(LONGTEXT, "mysql", "mariadb"), nullable=True),
    # Last, so that reading the other columns does not read past it.
    Column("message", Text().with_variant(LONGTEXT, "mysql", "mariadb"), nullable=False),
    Index("taskapp_outbox_waiting", "refused", "created_us"),
    **BINARY,
)  # fmt: skip
