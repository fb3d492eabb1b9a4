"""Adds the model of tasks, which has permissions and no table."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Changes no table."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("taskapp", "0001_outbox")]

    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        migrations.CreateModel(
            name="Task",
            fields=[("id", models.CharField(max_length=255, primary_key=True, serialize=False))],
            options={"managed": False, "default_permissions": ("view", "change")},
        ),
    ]
