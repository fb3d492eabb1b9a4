"""Unique tasks: at most one of a key, decided by the script that pushes, and never a lock without a holder."""

from __future__ import annotations

from typing import Any

import pytest

from taskapp.engine.envelope import unseal
from taskapp.engine.limits import Concurrency, Limits, Unique, packed
from taskapp.engine.producer import Message, Taken
from taskapp.errors import KeyTaken
from taskapp.transport.codec import pack_task
from tests.engine.bench import Bench, TestNode, leaving, names
from tests.engine.world import LosingSocket
from tests.support import RedisServer


def unique(on: Any = "existing", until: Any = "end", **options: Any) -> Limits:
    return Limits(unique=Unique("mail 7", until=until, on_duplicate=on, **options))


def keys_left(bench: Bench) -> list[bytes]:
    return bench.client.keys("*unique*")


def finish(node: TestNode, *tags: str) -> None:
    for tag in tags:
        node.settle(tag)
    node.done()


@pytest.mark.parametrize("on", ["existing", "raise"])
def test_the_second_of_a_key_is_not_queued_and_its_caller_learns_of_the_first(
    each_server: RedisServer, on: str
) -> None:
    bench = Bench(each_server)
    outcome = "existing" if on == "existing" else "refused"
    assert bench.submit("a", limits=unique(on)) == []
    assert bench.submit("b", limits=unique(on)) == [Taken("b", outcome, "a")]
    node = bench.node()
    [message] = node.take(5)
    assert bench.submit("c", limits=unique(on)) == [Taken("c", outcome, "a")]

    finish(node, message.tag)

    assert keys_left(bench) == []
    assert bench.submit("d", limits=unique(on)) == []
    bench.close()


def test_in_a_bulk_the_first_is_queued_and_the_others_are_answered_one_by_one(bench: Bench) -> None:
    told: list[Taken] = []
    messages = [bench.limited(name, unique("raise"))._replace(on_taken=told.append) for name in "abc"]

    taken = bench.producer.push([*messages, Message("q1", 0, 0, "plain", b"{}")])

    assert taken == told == [Taken("b", "refused", "a"), Taken("c", "refused", "a")]
    assert len(bench.node().take(9)) == 2


def test_pushing_the_same_id_again_queues_nothing(bench: Bench) -> None:
    bench.submit("a", limits=unique("raise"))

    assert bench.submit("a", limits=unique("raise")) == [Taken("a", "existing", "a")]
    assert names(bench.node().take(9)) == ["a"]


def test_an_answer_that_was_lost_is_learnt_all_the_same(bench: Bench) -> None:
    bench.submit("a", limits=unique())
    bench.producer.link.command("PING")
    line = bench.producer.link._line
    line.socket = LosingSocket(line.socket)

    assert bench.submit("b", limits=unique()) == [Taken("b", "existing", "a")]


def test_until_the_start_another_may_wait_while_one_runs(bench: Bench) -> None:
    bench.submit("a", limits=unique(until="start"))
    node = bench.node()
    [message] = node.take()
    assert keys_left(bench) == []

    assert bench.submit("b", limits=unique(until="start")) == []
    assert bench.submit("c", limits=unique(until="start")) == [Taken("c", "existing", "b")]
    node.give_back([message.tag], "retry")
    node.done()

    assert names(node.take(5)) == ["a", "b"]


def test_for_a_time_the_key_is_kept_after_the_end(bench: Bench) -> None:
    limits = unique(until="time", keep_ms=60_000)
    bench.submit("a", limits=limits)
    node = bench.node()
    finish(node, node.take()[0].tag)

    assert bench.submit("b", limits=limits) == [Taken("b", "existing", "a")]
    assert 0 < bench.client.pttl(bench.keys("unique", "mail 7")) <= 60_000
    bench.let_time_pass(61)
    assert bench.submit("c", limits=limits) == []
    assert bench.submit("d", limits=limits) == [Taken("d", "existing", "c")]


def task(bench: Bench, name: str, body: str, limits: Limits) -> Message:
    """Return a message as taskapp packs it, with headers."""
    headers = {"id": name, "root_id": name, "task": "shop.mail", "argsrepr": f"({body!r},)"}
    blob = unseal(pack_task((body, "application/json", "utf-8"), headers, 0, name, None, "", ""))
    return bench.limited(name, limits)._replace(
        blob=bench.limited(name, limits).blob.removesuffix(name.encode()) + blob.body
    )


@pytest.mark.parametrize("first", ["a", "a much longer id than that of the other one, beyond 32 bytes"])
def test_the_waiting_one_gets_the_new_arguments_and_keeps_its_id(bench: Bench, first: str) -> None:
    bench.producer.push([task(bench, first, "old", unique("replace"))])

    assert bench.producer.push([task(bench, "bb", "new", unique("replace"))]) == [Taken("bb", "replaced", first)]

    [message] = bench.node().take(5)
    expected = task(bench, first, "new", unique("replace"))
    assert message.envelope == unseal(expected.blob)


def test_a_replacement_with_other_limits_moves_to_its_lane(bench: Bench) -> None:
    def limits(tenant: str) -> Limits:
        return Limits(slots=(Concurrency("mail", tenant, 1),), unique=Unique("mail 7", on_duplicate="replace"))

    bench.submit("running", limits=Limits(slots=(Concurrency("mail", "x", 1),)))
    node = bench.node()
    node.take()
    bench.submit("a", limits=limits("x"))
    assert node.take() == []

    assert bench.submit("b", limits=limits("y")) == [Taken("b", "replaced", "a")]

    [message] = node.take()
    assert (message.envelope.id, message.envelope.body) == ("a", b"b")
    assert bench.client.hlen(bench.keys("limited_messages", "q1")) == 0
    finish(node, message.tag)
    assert keys_left(bench) == []


def test_a_running_one_is_not_replaced(bench: Bench) -> None:
    bench.submit("a", limits=unique("replace"))
    bench.node().take()

    assert bench.submit("b", limits=unique("replace")) == [Taken("b", "existing", "a")]


def test_the_latest_waits_until_the_running_one_has_ended(bench: Bench) -> None:
    node, other = bench.node(), bench.node()
    bench.submit("a", limits=unique("latest"))
    [running] = node.take()

    assert bench.submit("b", limits=unique("latest")) == []
    assert bench.submit("c", limits=unique("latest")) == [Taken("c", "replaced", "b")]
    assert other.take(5) == []
    finish(node, running.tag)

    [message] = other.take(5)
    assert (message.envelope.id, message.envelope.body) == ("b", b"c")
    finish(other, message.tag)
    assert keys_left(bench) == []
    assert bench.client.keys("*slots*") == []


def test_a_retry_of_the_latest_and_the_one_that_waits_run_one_after_the_other(bench: Bench) -> None:
    node = bench.node()
    bench.submit("a", limits=unique("latest"))
    [running] = node.take()
    bench.submit("b", limits=unique("latest"))

    node.settle(running.tag, leaving(bench.limited("a", unique("latest"))))
    node.done()

    order = []
    while taken := node.take(5):
        order += names(taken)
        assert len(taken) == 1
        finish(node, taken[0].tag)
    assert sorted(order) == ["a", "b"]
    assert keys_left(bench) == []


@pytest.mark.parametrize("how", ["settle", "bury", "crash", "cancel", "cancel delayed", "empty", "drop"])
def test_a_key_is_free_when_its_task_has_ended_however_it_ended(make_bench: Any, how: str) -> None:
    bench = make_bench(crash_limit=1)
    limits = unique("raise")
    if how == "drop":
        limits = limits._replace(slots=(Concurrency("mail", "", 1, "drop"),))
        bench.submit("other", limits=Limits(slots=(Concurrency("mail", "", 1),)))
        bench.node().take()
    due_ms = bench.now_ms() + 60_000 if how == "cancel delayed" else 0
    bench.submit("a", limits=limits, due_ms=due_ms)
    assert keys_left(bench)
    node = bench.node()
    if how.startswith("cancel"):
        assert bench.delayed.cancel("a")
    elif how == "empty":
        bench.link.run("empty", bench.options.prefix, 0, "q1", "0")
    else:
        taken = node.take()
        if how == "settle":
            finish(node, taken[0].tag)
        elif how == "bury":
            node.bury(taken[0].tag, "failed", "why")
            node.done()
        elif how == "crash":
            node.die()
            bench.end_leases(node.epoch)
            bench.reap()

    assert keys_left(bench) == []
    assert bench.submit("b", limits=limits) == []


@pytest.mark.parametrize("how", ["given back", "retried later", "closed", "reaped", "a retry that follows", "parked"])
def test_a_key_is_kept_while_its_task_waits_again(bench: Bench, how: str) -> None:
    bench.submit("a", limits=unique("raise"))
    node = bench.node()
    [message] = node.take()
    if how == "given back":
        node.give_back([message.tag])
    elif how == "retried later":
        node.give_back([message.tag], "retry", 50)
    elif how == "closed":
        node.close()
    elif how == "a retry that follows":
        node.settle(message.tag, leaving(bench.limited("a", unique("raise"), due_ms=bench.now_ms() + 50_000)))
    elif how == "parked":
        node.park(message.tag, "shop.mail")
    else:
        node.die()
        bench.end_leases(node.epoch)
        bench.reap()
    if node.epoch:
        node.done()

    assert bench.submit("b", limits=unique("raise")) == [Taken("b", "refused", "a")]
    bench.let_time_pass(60)
    [again] = bench.node().take(5)
    assert again.envelope.id == "a"
    assert bench.submit("b", limits=unique("raise")) == [Taken("b", "refused", "a")]


def test_a_key_without_a_holder_is_free(bench: Bench) -> None:
    bench.submit("a", limits=unique("raise"))
    node = bench.node()
    node.take()
    bench.client.delete(bench.keys("leased", node.epoch))  # as an old node reaps it

    assert bench.submit("b", limits=unique("raise")) == []


def test_a_letter_whose_key_is_taken_stays_dead(bench: Bench) -> None:
    bench.submit("a", limits=unique("raise"))
    node = bench.node()
    node.bury(node.take()[0].tag, "failed", "why")
    node.done()
    bench.submit("b", limits=unique("raise"))

    with pytest.raises(KeyTaken, match="q1/1 stays dead: the task b has"):
        bench.dead.replay("q1", 1)

    assert bench.dead.count() == {("q1", "failed"): 1}
    finish(node, node.take()[0].tag)
    assert bench.dead.replay("q1", 1)
    assert bench.submit("c", limits=unique("raise")) == [Taken("c", "refused", "a")]


@pytest.mark.parametrize("on", ["existing", "raise"])
def test_a_follow_up_whose_key_is_taken_fails_visibly(bench: Bench, on: str) -> None:
    bench.submit("a", limits=unique(on))
    bench.push("first")
    node = bench.node()
    by_name = {each.envelope.id: each for each in node.take(2)}

    node.settle(by_name["first"].tag, leaving(bench.limited("b", unique(on))))
    node.done()

    assert [(each.id, each.reason) for each in bench.told] == [("b", "rejected")]
    assert bench.dead.find("q1")[0].error == "by its limits: the task a has its unique key"


def test_each_call_pushes_a_debounced_task_back_but_not_for_ever(bench: Bench) -> None:
    limits = unique("replace", debounce_ms=10_000, longest_ms=25_000)
    bench.submit("a", limits=limits)
    node = bench.node()
    for number in range(3):
        bench.let_time_pass(8)
        assert node.take() == []
        assert bench.submit(f"{number}", limits=limits) == [Taken(f"{number}", "replaced", "a")]
    [waiting] = bench.delayed.soonest("q1")
    assert waiting.due_at * 1_000 - bench.now_ms() == pytest.approx(1_000, abs=500)

    bench.let_time_pass(1.5)

    [message] = node.take()
    assert (message.envelope.id, message.envelope.body) == ("a", b"2")


def test_a_call_pushes_back_a_debounced_task_that_is_due_and_waits(bench: Bench) -> None:
    limits = unique("latest", debounce_ms=10_000, longest_ms=25_000)
    bench.submit("first", limits=limits)
    bench.let_time_pass(11)
    node = bench.node()
    [first] = node.take()
    bench.submit("a", limits=limits)
    bench.let_time_pass(11)
    assert node.take() == []  # due, but the first one runs

    assert bench.submit("b", limits=limits) == [Taken("b", "replaced", "a")]
    finish(node, first.tag)

    bench.let_time_pass(9)
    assert node.take() == []
    bench.let_time_pass(1.5)
    [message] = node.take()
    assert (message.envelope.id, message.envelope.body) == ("a", b"b")
    finish(node, message.tag)
    assert keys_left(bench) == []


def test_a_debounced_task_that_waited_longest_is_not_pushed_back(bench: Bench) -> None:
    limits = unique("latest", debounce_ms=10_000, longest_ms=25_000)
    bench.submit("first", limits=limits)
    bench.let_time_pass(11)
    node = bench.node()
    [first] = node.take()
    bench.submit("a", limits=limits)
    bench.let_time_pass(26)
    assert node.take() == []

    bench.submit("b", limits=limits)
    finish(node, first.tag)

    [message] = node.take()
    assert (message.envelope.id, message.envelope.body) == ("a", b"b")


def test_the_limits_of_a_message_are_packed_as_scripts_read_them() -> None:
    assert packed(Limits("t", (), (), Unique("k"))) == b"\x94\xa1t\x90\x90\x96\xa1k\xa3end\0\xa8existing\0\0"
