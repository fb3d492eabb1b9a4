"""Celery's integration suite: which of its tests say nothing about taskapp, and which differ on purpose."""

from __future__ import annotations

from tests.upstream.suites import Suite

IN_PROCESS = "looks into the worker from inside its process, which fails with a real worker of stock Celery as well"
WITH_STOCK = {
    "*test_canvas.py::test_stamping_mechanism::test_task_received_has_access_to_stamps": IN_PROCESS,
    "*test_canvas.py::test_stamping_mechanism::test_linking_stamped_sig": IN_PROCESS,
    "*test_canvas.py::test_stamping_mechanism::test_err_linking_stamped_sig": IN_PROCESS,
    "*test_inspect.py::test_Inspect::test_stats": IN_PROCESS,
    "*test_inspect.py::test_Inspect::test_hello_stamps_received_revoked_ids_locally": IN_PROCESS,
    "*test_tasks.py::test_tasks::test_send_task_without_ignore_result_uses_task_ignore_result": IN_PROCESS,
    "*test_tasks.py::test_tasks::test_send_task_without_ignore_result_stores_result": IN_PROCESS,
    "*test_tasks.py::test_tasks::test_revoked_by_headers_simple_canvas": IN_PROCESS,
    "*test_tasks.py::test_tasks::test_revoked_by_headers_complex_canvas": IN_PROCESS,
    "*test_tasks.py::test_trace_log_arguments": IN_PROCESS,
    "*test_tasks.py::test_task_redis_result_backend::test_retry_preserves_ignore_result_*": IN_PROCESS,
    "*test_tasks.py::test_task_replacement::test_replaced_task_nesting_level_*": IN_PROCESS,
    "*test_tasks.py::test_task_replacement::test_replaced_task_nesting_chain": IN_PROCESS,
    "*test_tasks.py::test_signal_bound_method_receivers": IN_PROCESS,
    "*test_worker.py::test_pidbox_reset_after_repeated_control_errors": "an earlier test leaves its process in a task",
    "*test_security.py": "its tasks end a worker of stock Celery; it is expected to fail there as well",
}
"""Id of a test, or its class or module, to the reason why it is skipped."""

AT_THE_END = "a task is acknowledged when it ends, not when it begins"
CHORDS = "who has ended in a chord is kept by the engine, not in Celery's keys"
IN_REDIS = "delayed tasks wait in Redis, where `inspect scheduled` does not look"
NO_SUBSCRIPTIONS = "results are not subscribed to one by one, so that they leave no subscriptions behind"
DIFFERENCES = {
    "*test_canvas.py::test_chord::test_chord_on_error": CHORDS,
    "*test_canvas.py::test_chord::test_generator": "the tasks of a generator are submitted together, once it has ended",
    "*test_inspect.py::test_Inspect::test_active": AT_THE_END,
    "*test_inspect.py::test_Inspect::test_query_task": AT_THE_END,
    "*test_inspect.py::test_Inspect::test_scheduled": IN_REDIS,
    "*test_redis_backend.py::test_chord_expires": CHORDS,
    "*test_redis_backend.py::test_chord_part_return_records_each_header_task_once": CHORDS,
    "*test_redis_backend.py::test_pubsub_*": NO_SUBSCRIPTIONS,
    "*test_tasks.py::test_task_redis_result_backend::test_asyncresult_*_cancels_subscription": NO_SUBSCRIPTIONS,
    "*test_tasks.py::test_tasks::test_task_sent_event_respects_publish_retry_limit": "`task-sent` goes with its task",
    "*test_worker.py::test_django_fixup_signals_only_handled_by_own_app": "Django's checks are run by taskapp's fixup",
}
"""The same for those which fail on purpose: each has a line in ``docs/moving.md``."""

FAILED_ONCE = (
    "*test_backend_leak_in_fixture_teardown.py::test_fixture_teardown_releases_backend_connections",
    "*test_canvas.py::test_chord::test_group_or_task_countdown_delays_header",
    "*test_group_chains.py::test_group_chains::test_group_results_reach_the_next_group?True-True-True-1?",
    "*test_tasks.py::test_class_based_tasks",
    "*test_tasks.py::test_tasks::test_properties",
    "*test_tasks.py::test_tasks::test_revoke_keeps_state_of_task_started_elsewhere",
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
