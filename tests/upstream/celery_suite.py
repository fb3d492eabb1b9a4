"""Celery's integration suite: which of its tests say nothing about taskapp, and which differ on purpose."""

from __future__ import annotations

from tests.upstream.suites import Suite

IN_PROCESS = "looks into the worker from inside its process: fails with a real worker of stock Celery as well"
WITH_STOCK = {
    "*test_inspect.py::test_Inspect::test_stats": IN_PROCESS,
    "*test_inspect.py::test_Inspect::test_hello_stamps_received_revoked_ids_locally": IN_PROCESS,
}
AT_THE_END = "tasks are acknowledged when they end, not when they begin"
IN_REDIS = "delayed tasks wait in Redis, where `inspect scheduled` does not see them"
DIFFERENCES = {
    "*test_inspect.py::test_Inspect::test_active": AT_THE_END,
    "*test_inspect.py::test_Inspect::test_query_task": AT_THE_END,
    "*test_inspect.py::test_Inspect::test_scheduled": IN_REDIS,
    "*test_canvas.py::test_chord::test_generator": "a generator's tasks are submitted together, once it has ended",
    "*test_canvas.py::test_chord::test_chord_on_error": "no list keeps the results of a failed chord's header",
}
FAILED_ONCE = (
    "*test_backend_leak_in_fixture_teardown.py::test_fixture_teardown_releases_backend_connections",
    "*test_group_chains.py::test_group_chains::test_group_results_reach_the_next_group[True-True-True-1]",
    "*test_tasks.py::test_tasks::test_properties",
    "*test_tasks.py::test_class_based_tasks",
)

CELERY = Suite(
    "celery",
    "t/integration",
    plugins=("celery_processes",),
    options=("--ignore", "t/integration/test_backend.py"),  # of Azure
    skipped=WITH_STOCK,
    differences=DIFFERENCES,
    failed_once=FAILED_ONCE,
)
