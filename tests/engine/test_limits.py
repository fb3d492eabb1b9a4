"""Limits: what may not run yet waits in Redis, in order, and holds nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic

import pytest

from taskapp.engine.limits import Concurrency, Limits, Rate
from taskapp.engine.settlement import Pause, Settlement
from tests.engine.bench import Bench, TestNode, leaving, names
from tests.support import RedisServer, eventually

Make = Callable[..., Bench]


def fair(key: str) -> Limits:
    return Limits(fair_key=key)


def per_second(limit: float, burst: float = 1, key: str = "", cost: float = 1) -> Limits:
    return Limits(rates=(Rate("mail", key, limit, 1_000, burst, cost),))


def at_once(most: int, key: str = "", on_busy: str = "wait") -> Limits:
    return Limits(slots=(Concurrency("mail", key, most, on_busy),))  # type: ignore[arg-type]


def finish(node: TestNode, *tags: str) -> None:
    for tag in tags:
        node.settle(tag)
    node.done()


def left_over(bench: Bench) -> list[bytes]:
    """Return keys about limits that are left."""
    return [
        key for key in bench.client.keys("*") if any(part in key for part in (b"lane", b"limit", b"fair", b"block"))
    ]


# --- lanes ------------------------------------------------------------------------------------------


def test_a_message_with_limits_is_claimed_settled_and_leaves_nothing_behind(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    bench.submit("a", "b", limits=Limits("tenant", (Rate("mail", "", 1_000, 1, 9),), (Concurrency("mail", "", 5),)))
    node = bench.node()

    taken = node.take(10)
    finish(node, *(each.tag for each in taken))

    assert names(taken) == ["a", "b"]
    assert [each.envelope.version for each in taken] == [3, 3]
    node.take()
    eventually(lambda: left_over(bench) == [])
    bench.close()


def test_priorities_stay_strict_and_queues_in_order(bench: Bench) -> None:
    for queue in ("q2", "q1"):
        for priority in (0, 9, 4):
            bench.submit(f"{queue} {priority} a", queue=queue, priority=priority, limits=fair("x"))
            bench.push(f"{queue} {priority} b", queue=queue, priority=priority)

    taken = names(bench.node().take(12))

    levels = [f"{queue} {priority}" for queue in ("q1", "q2") for priority in (9, 4, 0)]
    assert [each.rsplit(" ", 1)[0] for each in taken] == [level for level in levels for _ in "ab"]


def test_a_low_priority_with_limits_is_not_starved(make_bench: Make) -> None:
    bench = make_bench(starvation_guard=4)
    bench.submit("patient", queue="q2", limits=fair("x"))
    bench.submit(*map(str, range(10)), queue="q1", priority=9, limits=fair("x"))
    node = bench.node()

    assert [names(node.take())[0] for _ in range(4)] == ["0", "1", "2", "patient"]


def test_messages_given_back_are_the_first_of_their_lane_again(bench: Bench) -> None:
    bench.submit("a", "b", "c", "d", limits=at_once(9))
    node = bench.node()
    tags = [message.tag for message in node.take(3)]

    node.give_back(tags)
    node.done()

    again = node.take(4)
    assert names(again) == ["a", "b", "c", "d"]
    assert all(message.envelope.deliveries == 0 for message in again)


def test_a_retry_counts_and_waits_until_it_is_due(bench: Bench) -> None:
    bench.submit("a", limits=at_once(1))
    node = bench.node()
    node.give_back([node.take()[0].tag], "retry", delay_seconds=50)
    node.done()
    assert node.take(1) == []

    bench.let_time_pass(51)

    [again] = node.take()
    assert again.envelope.deliveries == 1


def test_delayed_messages_come_when_they_are_due_and_can_be_moved_and_cancelled(bench: Bench) -> None:
    far = bench.now_ms() + 3_600_000
    bench.submit("a", "b", "c", limits=at_once(1), due_ms=far)
    node = bench.node()

    assert bench.delayed.count()["q1"] == 3
    assert bench.delayed.cancel("a")
    assert not bench.delayed.cancel("a")
    assert bench.delayed.reschedule("c", 0)
    assert names(node.take(3)) == ["c"]
    assert bench.delayed.count()["q1"] == 1
    claim = node.ask()
    assert claim is not None
    assert claim.next_due_seconds == pytest.approx(3_600, abs=5)


def test_a_node_that_closes_gives_back_what_has_limits(bench: Bench) -> None:
    bench.submit(*(str(number) for number in range(150)), limits=at_once(1_000))
    node = bench.node()
    assert len(node.take(1_000) + node.take(1_000)) == 150

    node.close(("q1",))

    other = bench.node()
    assert names(other.take(1_000) + other.take(1_000)) == [str(number) for number in range(150)]
    assert bench.client.scard(bench.keys("slots", "mail", "")) == 150


def test_the_messages_of_a_dead_node_come_back_with_a_crash_and_free_their_slots(bench: Bench) -> None:
    bench.submit("a", "b", limits=at_once(1))
    node = bench.node()
    node.take()
    node.die()
    bench.end_leases(node.epoch)

    bench.reap()

    [again] = bench.node().take(2)
    assert (again.envelope.id, again.envelope.crashes) == ("a", 1)
    assert bench.client.scard(bench.keys("slots", "mail", "")) == 1


def test_a_task_that_kills_its_nodes_is_buried_and_frees_its_slot(make_bench: Make) -> None:
    bench = make_bench(crash_limit=1)
    bench.submit("a", "b", limits=at_once(1))
    node = bench.node()
    node.take()
    node.die()
    bench.end_leases(node.epoch)

    bench.reap()

    assert bench.dead.count() == {("q1", "crashed"): 1}
    assert names(bench.node().take(2)) == ["b"]


def test_a_replayed_letter_goes_back_to_its_lane(bench: Bench) -> None:
    bench.submit("a", "b", limits=at_once(1))
    node = bench.node()
    node.bury(node.take()[0].tag, "failed", "why")
    node.done()

    assert bench.dead.replay("q1", 1)

    first, second = node.take(1), None
    assert names(first) == ["b"]
    assert node.take(1) == []
    finish(node, first[0].tag)
    [second] = node.take()
    assert (second.envelope.id, second.envelope.version) == ("a", 3)


def test_a_task_type_that_a_node_lacks_waits_in_its_lane_for_one_that_has_it(bench: Bench) -> None:
    bench.submit("a", limits=fair("x"), task="shop.video")
    bench.submit("b", limits=fair("x"))
    node = bench.node("shop.mail")
    [message] = node.take()

    node.park(message.tag, "shop.video")
    node.done()

    assert names(node.take(2)) == ["b"]
    assert names(bench.node("shop.video").take(2)) == ["a"]


def test_emptying_a_queue_deletes_what_has_limits(bench: Bench) -> None:
    bench.submit(*(f"r{number}" for number in range(700)), limits=per_second(1, 1, "x"))
    bench.submit("d", limits=at_once(1), due_ms=bench.now_ms() + 100_000)
    bench.push("plain")
    node = bench.node()
    node.take(1)
    node.take(1)
    gone, at = 0, b"0"

    while True:
        number, at = bench.link.run("empty", bench.options.prefix, 0, "q1", at)
        gone += number
        if at == b"0":
            break

    assert gone == 700
    assert node.take(5) == []
    bench.client.delete(bench.keys("rate", "mail", "x"), bench.keys("gates"))
    assert left_over(bench) == []


def test_what_an_old_node_returned_goes_back_to_its_lane(bench: Bench) -> None:
    limits = at_once(1)
    bench.submit("b", limits=limits)
    inner = bench.limited("a", limits).blob
    bench.client.rpush(bench.keys.ready("q1"), b"\2\0\0\2\0\1\0\0" + inner)
    node = bench.node()

    claims = [node.take(2), node.take(2)]

    [message] = claims[0] + claims[1]
    assert message.envelope[:5] == ("a", "shop.mail", 0, 2, 1)


def test_a_message_with_limits_that_lies_among_ready_ones_is_not_run_past_them(bench: Bench) -> None:
    bench.submit("a", limits=at_once(1))
    bench.client.lpush(bench.keys.ready("q1"), bench.limited("b", at_once(1)).blob)
    node = bench.node()

    assert len(node.take(2) + node.take(2)) == 1


# --- rates ------------------------------------------------------------------------------------------


def test_a_rate_lets_a_burst_start_and_then_one_at_a_time(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    bench.submit(*map(str, range(9)), limits=per_second(0.01, burst=3))
    node = bench.node()

    assert names(node.take(9)) == ["0", "1", "2"]
    claim = node.ask(9)
    assert claim is not None
    assert (claim.messages, claim.next_due_seconds) == ([], pytest.approx(100, abs=2))
    bench.let_time_pass(101)
    assert names(node.take(9)) == ["3"]
    bench.let_time_pass(250)
    assert names(node.take(9)) == ["4", "5"]
    bench.close()


def test_cost_is_charged_and_one_above_the_burst_runs_alone(bench: Bench) -> None:
    for name, cost in (("a", 2), ("b", 2), ("c", 50), ("d", 1)):
        bench.submit(name, limits=per_second(0.1, burst=4, cost=cost))
    node = bench.node()

    assert names(node.take(9)) == ["a", "b"]
    bench.let_time_pass(41)
    assert names(node.take(9)) == ["c"]
    bench.let_time_pass(400)
    assert node.take(9) == []
    bench.let_time_pass(80)
    assert names(node.take(9)) == ["d"]


def test_one_that_costs_less_does_not_wait_for_the_price_of_the_one_before(bench: Bench) -> None:
    node = bench.node()
    for tenant, cost in (("a", 10), ("b", 8), ("c", 1)):
        bench.submit(tenant, limits=Limits(tenant, (Rate("mail", "", 0.1, 1_000, 10, cost),)))
        node.take(9)

    bench.let_time_pass(81)
    assert names(node.take(9)) == ["b"]
    bench.let_time_pass(11)
    assert names(node.take(9)) == ["c"]


def test_a_blocked_key_blocks_no_other(bench: Bench) -> None:
    bench.submit(*(f"a{number}" for number in range(5)), limits=per_second(0.01, key="a"))
    bench.submit("b0", "b1", limits=per_second(0.01, key="b"))
    bench.push("plain")
    node = bench.node()

    assert sorted(names(node.take(9))) == ["a0", "b0", "plain"]


def test_a_pause_stops_a_key_on_all_nodes_until_it_ends(bench: Bench) -> None:
    bench.submit("a", "b", "c", limits=per_second(1_000, burst=9, key="x"))
    node, other = bench.node(), bench.node()
    node.take()

    bench.link.run("limit_pause", bench.options.prefix, 0, "", "mail", "x", 30_000)

    claim = other.ask(2)
    assert claim is not None
    assert (claim.messages, claim.next_due_seconds) == ([], pytest.approx(30, abs=1))
    bench.let_time_pass(31)
    assert names(other.take(2)) == ["b", "c"]


@pytest.mark.parametrize("goes_back", [False, True])
def test_runs_pause_their_key_however_they_end_and_end_no_longer_pause(bench: Bench, goes_back: bool) -> None:
    bench.submit("a", "b", limits=per_second(1_000, burst=9, key="x"))
    node, other = bench.node(), bench.node()
    for claimed, seconds in zip(node.take(2), (40, 30), strict=True):
        settlement = Settlement()
        settlement.pauses = (Pause("mail", "x", monotonic() + seconds),)
        if goes_back:
            node.give_back([claimed.tag], "retry", pauses=settlement.pauses)
        else:
            node.settle(claimed.tag, settlement)
    node.done()
    bench.submit("c", limits=per_second(1_000, burst=9, key="x"))

    claim = other.ask(3)
    assert claim is not None
    assert (claim.messages, claim.next_due_seconds) == ([], pytest.approx(40, abs=1))
    bench.let_time_pass(41)
    assert sorted(names(other.take(3))) == (["a", "b", "c"] if goes_back else ["c"])


def test_a_run_that_has_lost_its_claim_pauses_nothing(bench: Bench) -> None:
    bench.submit("a", "b", limits=per_second(1_000, burst=9, key="x"))
    node, other = bench.node(), bench.node()
    (claimed,) = node.take(1)
    bench.end_leases(node.epoch)
    bench.reap()
    settlement = Settlement()
    settlement.pauses = (Pause("mail", "x", monotonic() + 40),)

    node.settle(claimed.tag, settlement)
    node.done()

    assert names(other.take(3)) == ["a", "b"]


def test_the_end_of_a_pause_lets_them_go_on(bench: Bench) -> None:
    bench.submit("a", limits=per_second(1_000, key="x"))
    bench.link.run("limit_pause", bench.options.prefix, 0, "", "mail", "x", 30_000)
    node = bench.node()
    assert node.take() == []
    bench.client.delete(bench.keys("wake", "q1"))

    bench.link.run("limit_pause", bench.options.prefix, 0, "", "mail", "x", 0)

    assert bench.client.llen(bench.keys("wake", "q1")) == 1
    assert names(node.take()) == ["a"]


def test_many_tenants_of_one_rate_take_turns_and_each_start_costs_little(bench: Bench) -> None:
    for number in range(400):
        rates = (Rate("mail", "", 0.1, 1_000, 1),)
        bench.submit(f"t{number} a", f"t{number} b", limits=Limits(f"tenant {number:03}", rates))
    node, order = bench.node(), []
    for _ in range(30):
        node.take(1)
    for _ in range(30):
        bench.let_time_pass(10.5)
        bench.client.config_resetstat()
        order += names(node.take(5))
        calls = sum(int(each["calls"]) for each in bench.client.info("commandstats").values())
        assert calls < 200

    assert len(order) == len(set(order)) == 30
    assert {each.split()[1] for each in order} == {"a"}


def test_a_queue_that_no_node_consumes_does_not_hold_up_others_at_the_same_gate(bench: Bench) -> None:
    limits = per_second(0.1, key="x")
    bench.submit("first", "second", limits=limits)
    bench.submit("elsewhere", queue="q2", priority=9, limits=limits)
    node, other = bench.node(), bench.node()
    assert names(node.take(5, ("q1",))) == ["first"]
    assert node.take(5, ("q1",)) == other.take(5, ("q2",)) == []

    bench.let_time_pass(10.5)
    assert node.take(5, ("q1",)) == []  # the other queue's is let in first
    bench.let_time_pass(1.5)

    assert names(node.take(5, ("q1",))) == ["second"]


# --- slots ------------------------------------------------------------------------------------------


def test_no_more_run_at_once_than_there_are_slots(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    bench.submit(*map(str, range(6)), limits=at_once(2))
    node, other = bench.node(), bench.node()

    first, nothing = node.take(6), other.take(6)
    finish(node, first[0].tag)
    second = other.take(6)

    assert (names(first), nothing, names(second)) == (["0", "1"], [], ["2"])
    finish(node, first[1].tag)
    finish(other, second[0].tag)
    assert names(node.take(6)) == ["3", "4"]
    bench.close()


def test_two_levels_hold_a_slot_of_each(bench: Bench) -> None:
    def limits(tenant: str) -> Limits:
        return Limits(slots=(Concurrency("mail", tenant, 2), Concurrency("mail:all", "", 3)))

    for tenant in "ab":
        bench.submit(*(f"{tenant}{number}" for number in range(3)), limits=limits(tenant))
    node = bench.node()

    first = node.take(9)
    assert sorted(names(first)) == ["a0", "a1", "b0"]
    finish(node, first[0].tag)
    assert names(node.take(9)) == ["a2"]
    finish(node, first[1].tag)
    assert names(node.take(9)) == ["b1"]


def test_a_free_slot_wakes_a_node(bench: Bench) -> None:
    bench.submit("a", "b", limits=at_once(1))
    node = bench.node()
    [message] = node.take()
    node.take()
    bench.client.delete(bench.keys("wake", "q1"))

    finish(node, message.tag)

    assert bench.client.llen(bench.keys("wake", "q1")) == 1


def test_a_slot_whose_claim_went_unnoticed_is_free_again(bench: Bench) -> None:
    bench.submit("a", "b", limits=at_once(1))
    node = bench.node()
    node.take()
    assert node.take() == []
    bench.client.delete(bench.keys("leased", node.epoch))  # as an old node reaps it

    bench.let_time_pass(2)
    bench.node().heartbeat.beat()

    assert names(node.take()) == ["b"]


def test_a_claim_finds_that_a_slot_went_unnoticed(bench: Bench) -> None:
    bench.submit("a", limits=at_once(1))
    node = bench.node()
    node.take()
    bench.client.delete(bench.keys("leased", node.epoch))
    bench.submit("b", limits=at_once(1))

    assert names(node.take()) == ["b"]


def test_the_newest_is_dropped_and_reported_if_no_slot_is_free(bench: Bench) -> None:
    bench.submit("a", "b", "c", limits=at_once(1, on_busy="drop"))
    node = bench.node()

    assert names(node.take(3)) == ["a"]
    assert [(each.id, each.reason) for each in bench.told] == [("b", "rejected"), ("c", "rejected")]
    letters = bench.dead.find("q1")
    assert {each.error for each in letters} == {"by its limits: mail had no free slot"}
    bench.submit("d", limits=at_once(1, on_busy="drop"))
    assert node.take() == []
    assert bench.told[-1].id == "d"


def test_the_running_one_is_revoked_for_the_newest(bench: Bench) -> None:
    revoked: list[str] = []
    bench.submit("a", "b", limits=at_once(1, on_busy="cancel"))
    node = bench.node()
    node._role.on_revoked = revoked.extend
    [running] = node.take()

    assert node.take() == node.take() == []
    assert revoked == ["a"]
    finish(node, running.tag)
    assert names(node.take()) == ["b"]


# --- numbers at run time ------------------------------------------------------------------------------


def set_limit(bench: Bench, what: str, name: str, numbers: str) -> None:
    bench.link.run("limit", bench.options.prefix, 0, what, name, numbers)
    at = b"0"
    while True:
        at = bench.link.run("limit_reopen", bench.options.prefix, 0, at)
        if at == b"0":
            break


def test_what_is_set_wins_over_what_is_declared_over_what_a_message_says(bench: Bench) -> None:
    bench.submit(*map(str, range(9)), limits=at_once(1))
    node = bench.node()

    set_limit(bench, "declared", "mail", '{"most": 2}')
    assert len(node.take(9)) == 2
    set_limit(bench, "set", "mail", '{"most": 5}')
    set_limit(bench, "declared", "mail", '{"most": 3}')
    assert len(node.take(9)) == 3
    set_limit(bench, "set", "mail", "")
    finish(node, *list(node.held)[:3])
    assert len(node.take(9)) == 1


def test_a_rate_that_was_raised_lets_those_that_wait_go_on(bench: Bench) -> None:
    bench.submit(*map(str, range(9)), limits=per_second(0.001))
    node = bench.node()
    assert (len(node.take(9)), node.take(9)) == (1, [])
    bench.client.delete(bench.keys("wake", "q1"))

    set_limit(bench, "set", "mail", '{"limit": 1000000, "burst": 2000000000}')

    assert bench.client.llen(bench.keys("wake", "q1")) == 1
    assert len(node.take(9)) == 8


@pytest.mark.parametrize("waits", [True, False])
def test_a_rate_that_was_changed_holds_for_the_debt_of_its_keys(bench: Bench, waits: bool) -> None:
    bench.submit("0", "1", "2", limits=per_second(1 / 60))
    node = bench.node()
    assert names(node.take(1)) == ["0"]
    if waits:
        assert node.take(9) == []

    set_limit(bench, "set", "mail", '{"limit": 10}')  # from one a minute to one every 0.1 s

    assert node.take(9) == []
    bench.let_time_pass(0.11)
    assert names(node.take(9)) == ["1"]
    set_limit(bench, "set", "mail", "")
    claim = node.ask(9)
    assert claim is not None
    assert claim.next_due_seconds == pytest.approx(60, abs=6)


# --- fairness ------------------------------------------------------------------------------------------


def test_tenants_share_by_weight(bench: Bench) -> None:
    weights = {"one": 1, "two": 2, "five": 5}
    bench.client.hset(bench.keys("weights"), mapping=weights)
    for tenant in weights:
        for start in range(0, 14_000, 1_000):
            bench.submit(*(f"{tenant} {start + number}" for number in range(1_000)), limits=fair(tenant))
    node, got = bench.node(), Counter[str]()
    order: dict[str, list[int]] = {tenant: [] for tenant in weights}

    while got.total() < 20_000:
        for name in names(node.take(97)):
            tenant, number = name.split()
            got[tenant] += 1
            order[tenant].append(int(number))
        finish(node, *node.held)

    for tenant, weight in weights.items():
        assert got[tenant] / got.total() == pytest.approx(weight / 8, rel=0.03)
        assert order[tenant] == list(range(got[tenant]))


@pytest.mark.parametrize(("want", "many"), [(1, 20_000), (64, 100_000)])
def test_few_tasks_of_a_tenant_do_not_wait_for_the_many_of_another(bench: Bench, want: int, many: int) -> None:
    for start in range(0, many, 1_000):
        bench.submit(*(f"many {start + number}" for number in range(1_000)), limits=fair("many"))
    node = bench.node()
    for _ in range(50):
        finish(node, *(each.tag for each in node.take(20)))
    bench.submit(*(f"few {number}" for number in range(10)), limits=fair("few"))

    order = [name.split()[0] for _ in range(128 // want) for name in names(node.take(want))]

    at = [place for place, tenant in enumerate(order) if tenant == "few"]
    assert len(at) == 10
    assert max(later - earlier for earlier, later in zip([-1, *at], at, strict=False)) <= 2
    assert at[-1] - at[0] >= 16, "those that come later get no more than their turns"


def test_messages_without_limits_take_turns_with_the_others(bench: Bench) -> None:
    bench.submit(*(f"a{number}" for number in range(20)), limits=fair("a"))
    bench.push(*(f"p{number}" for number in range(20)))

    taken = names(bench.node().take(20))

    assert Counter(each[0] for each in taken) == {"a": 10, "p": 10}


# --- settling ------------------------------------------------------------------------------------------


def test_a_follow_up_with_limits_waits_in_its_lane(bench: Bench) -> None:
    bench.push("first")
    node = bench.node()
    [message] = node.take()

    node.settle(message.tag, leaving(bench.limited("a", at_once(1)), bench.limited("b", at_once(1))))
    node.done()

    assert names(node.take(5)) == ["a"]
    assert bench.ready() == []
