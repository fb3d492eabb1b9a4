"""kombu's integration tests and Flower's unit tests: which of them differ on purpose."""

from __future__ import annotations

from tests.upstream.suites import Suite

LEASES = "reads the hash of unacknowledged messages: leases replace it"
NO_EXPIRY = "`Queue(expires=…)` has no effect: the queue keeps its tasks"
HIGHEST_FIRST = "priority 9 is delivered first, as on RabbitMQ; kombu's Redis transport delivers 0 first"
READ_ONLY = "Flower is read-only unless it has a login"
OWN_TAB = "the Broker tab and its API are taskapp's"
AMQP_DEFAULT = "an app without a broker asks for one, or uses the embedded server, instead of `amqp://localhost`"
NUMBER_AS_ID = "asks for the result of the number 123: fails with every result backend"

KOMBU_REDIS = Suite(
    "kombu",
    "t/integration",
    modules=("t/integration/test_redis.py",),
    plugins=("kombu_on_engine",),
    differences={
        "*::test_event_loop_consumes_after_connection_reconnect?*-BRPOP?": "the engine claims without BRPOP",
        "*::test_RedisPriority::test_*consume": HIGHEST_FIRST,
        "*::test_RedisPublishBatch::test_direct_priority_and_fifo": HIGHEST_FIRST,
        "*::test_RedisPublishBatch::test_fanout_is_deferred_until_flush": "what goes to all is sent at once",
        "*::test_RedisQueueExpiration::test_queue_expiration_set": NO_EXPIRY,
        "*::test_RedisQueueExpiration::test_expiration_gets_reset_on_*": NO_EXPIRY,
        "*::test_RedisQueueExpiration::test_queue_expires_for_all_priorities": NO_EXPIRY,
        "*::test_RedisQueueExpiration::test_binding_table_kept_while_consumer_is_paused": NO_EXPIRY,
        "*::test_RedisQueueExpiration::test_binding_table_kept_while_drain_events_has_prefetch_full": NO_EXPIRY,
        "*::test_RedisRestoreAtShutdown::test_unacked_message_requeued_on_connection_close": LEASES,
        "*::test_RedisRestoreBindingLookupFailure": LEASES,
        "*::test_RedisRestoreVisible": LEASES,
    },
)
KOMBU_RABBITMQ = Suite(
    "kombu", "t/integration", modules=("t/integration/test_py_amqp.py",), plugins=("kombu_on_engine",)
)
FLOWER = Suite(
    "flower",
    "tests/unit",
    plugins=("flower_with_tabs",),
    skipped={
        "*::AsyncApplyTests::test_async_apply_countdown": NUMBER_AS_ID,
        "*::AsyncApplyTests::test_async_apply_eta": NUMBER_AS_ID,
        "*::AsyncApplyTests::test_async_apply_expires": NUMBER_AS_ID,
        "*::AsyncApplyTests::test_async_apply_expires_datetime": NUMBER_AS_ID,
    },
    differences={
        "*::QueueLengthsTests::test_unsupported_broker": OWN_TAB,
        "*::TestPrintBanner::test_print_banner": AMQP_DEFAULT,
        "*::TestPrintBanner::test_print_banner_with_ssl": AMQP_DEFAULT,
        "*::SecurityHeaderTests::test_nosniff_on_api_error": READ_ONLY,
        "*::TaskControlsTest::test_received_task_has_revoke_button": READ_ONLY,
        "*::TaskControlsTest::test_started_task_has_terminate_button": READ_ONLY,
        "*::XsrfProtectionTests::test_basic_auth_matching_origin_is_allowed": READ_ONLY,
        "*::XsrfProtectionTests::test_basic_auth_same_origin_post_is_allowed": READ_ONLY,
        "*::XsrfProtectionTests::test_fetch_metadata_wins_over_mismatched_origin": READ_ONLY,
        "*::XsrfProtectionTests::test_unauthenticated_server_allows_cross_site": READ_ONLY,
        "*::XsrfProtectionTests::test_unauthenticated_server_needs_no_token": READ_ONLY,
    },
)
