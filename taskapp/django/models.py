"""The tables of ``taskapp.django``."""

from __future__ import annotations

from django.db import models

from taskapp.outbox.rows import TABLE


class OutboxMessage(models.Model):
    """A task submitted in a transaction, until a relay has queued it; the same table as ``outbox.tables``."""

    id = models.CharField(max_length=255, primary_key=True)
    created_us = models.BigIntegerField()
    task = models.CharField(max_length=255)
    queue = models.CharField(max_length=255)
    size = models.IntegerField()
    claimed_until_us = models.BigIntegerField(default=0, db_default=0)
    refused = models.SmallIntegerField(default=0, db_default=0)
    attempts = models.IntegerField(default=0, db_default=0)
    error = models.TextField(null=True)
    message = models.TextField()

    class Meta:
        """Options of the model."""

        db_table = TABLE
        indexes = (models.Index(fields=["refused", "created_us"], name="taskapp_outbox_waiting"),)
        verbose_name = "outbox message"

    def __str__(self) -> str:
        return f"{self.task} {self.id}"


class Task(models.Model):
    """Stands for the tasks in the broker on the admin's pages and in permissions; it has no table."""

    id = models.CharField(max_length=255, primary_key=True)

    class Meta:
        """Options of the model."""

        managed = False
        default_permissions = ("view", "change")
