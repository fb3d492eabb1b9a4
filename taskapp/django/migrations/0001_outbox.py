"""Creates the table of the outbox."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates ``taskapp_outbox``."""

    initial = True

    dependencies: ClassVar[list[tuple[str, str]]] = []

    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("created_us", models.BigIntegerField()),
                ("task", models.CharField(max_length=255)),
                ("queue", models.CharField(max_length=255)),
                ("size", models.IntegerField()),
                ("claimed_until_us", models.BigIntegerField(db_default=0, default=0)),
                ("refused", models.SmallIntegerField(db_default=0, default=0)),
                ("attempts", models.IntegerField(db_default=0, default=0)),
                ("error", models.TextField(null=True)),
                ("message", models.TextField()),
            ],
            options={
                "verbose_name": "outbox message",
                "db_table": "taskapp_outbox",
                "indexes": [models.Index(fields=["refused", "created_us"], name="taskapp_outbox_waiting")],
            },
        ),
    ]
