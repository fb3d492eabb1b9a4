from django.db import models


class Build(models.Model):
    project = models.CharField(max_length=50)
    state = models.CharField(max_length=20, default="triggered")
    success = models.BooleanField(null=True)
    task_id = models.CharField(max_length=50, default="")
    commit = models.CharField(max_length=20, default="")
    tries = models.IntegerField(default=0)
    archived = models.BooleanField(default=False)


class Note(models.Model):
    """What a task did."""

    task_id = models.CharField(max_length=50)
    text = models.CharField(max_length=200)


class Limit(models.Model):
    project = models.CharField(max_length=50)
    free_after = models.IntegerField()


def note(task, text):
    Note.objects.create(task_id=task.request.id, text=text)
