from celery.bin.celery import celery

from taskapp.cli.main import CELERY_COMMANDS


def test_what_taskapp_names_as_commands_of_celery_are_all_it_has() -> None:
    # Flower's comes as a plugin, once the command runs.
    assert {*celery.commands, "flower"} == CELERY_COMMANDS
