"""What schedules promise: each due time is queued once, by one leader, whatever happens to it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from time import monotonic, time
from typing import Any

import pytest

from taskapp.engine.envelope import seal, unseal
from taskapp.engine.options import Options
from taskapp.engine.producer import Message
from taskapp.engine.settlement import EndOfTick, Settlement
from taskapp.errors import BrokerUnavailable
from taskapp.errors.schedules import BadSchedule, ScheduleExists, UnknownSchedule
from taskapp.redis.link import Link
from taskapp.schedules.leader import ScheduleLeader
from taskapp.schedules.schedule import Schedule, schedule_from
from taskapp.schedules.store import RUNS_KEPT, Make, Schedules
from taskapp.schedules.times import Cron, Interval, Once, tick_id
from taskapp.transport.codec import SENT_AT_HEADER, pack_task, ready_at_of, unpack
from tests.engine.bench import Bench
from tests.support import RedisServer, eventually

LEASE_SECONDS = 0.6
TASK = "shop.mail"


def make(schedule: Schedule, due_ms: int, identity: str) -> list[Message]:
    if schedule.queue == "nowhere":
        raise BadSchedule("queue", "nowhere", "there is none of that name", "add it")
    return [
        Message(schedule.queue or "q1", 0, 0, identity, seal(identity, TASK, 0, f"{schedule.name} {due_ms}".encode()))
    ]


class Site:
    """Schedules on one server, and beats that turn on request."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.schedules = Schedules(Link(bench.connect), bench.options.prefix, make)
        self.leaders: list[ScheduleLeader] = []
        self.canceled: list[str] = []

    def beat(self, name: str = "beat", made_by: Make = make) -> ScheduleLeader:
        prefix = self.bench.options.prefix
        leader = ScheduleLeader(
            self.bench.connect, prefix, made_by, name, on_cancel=self.canceled.extend, lease_seconds=LEASE_SECONDS
        )
        self.leaders.append(leader)
        return leader

    def ticks(self) -> list[tuple[str, int]]:
        """Name and due time of all that was queued, in its order."""
        return [(name, int(due)) for name, due in (body.decode().split() for body in self.bodies())]

    def bodies(self) -> list[bytes]:
        return [body_of(blob) for blob in self.bench.ready()]

    def add(self, name: str = "job", when: Any = None, **more: Any) -> Schedule:
        # What a busy machine is late with is not dropped.
        schedule = Schedule(name, TASK, when or Interval(0.2), **{"misfire": "catch_up", **more})
        self.schedules.add(schedule)
        return schedule

    def close(self) -> None:
        for leader in self.leaders:
            leader.resign()


def body_of(blob: bytes) -> bytes:
    name = blob.rfind(TASK.encode()) + len(TASK)
    return blob[name:]


def turn(*leaders: ScheduleLeader, seconds: float = 0.0, until: Callable[[], Any] = bool) -> None:
    """Let beats turn for a while, or until something is so."""
    end = monotonic() + (seconds or 60.0)
    while monotonic() < end and not until():
        for leader in leaders:
            leader.turn(0.02)
    assert seconds or until(), "it never came to be"


@pytest.fixture
def site(bench: Bench) -> Iterator[Site]:
    site = Site(bench)
    yield site
    site.close()


# --- one leader -----------------------------------------------------------------------------------------


def test_of_many_beats_one_queues_each_due_time_once(site: Site) -> None:
    beats = [site.beat(str(number)) for number in range(3)]
    site.add()

    turn(*beats, seconds=1.5)

    assert [beat.token for beat in beats].count(str(site.schedules.leader().token)) == 1
    dues = [due for _, due in site.ticks()]
    assert len(dues) >= 6
    assert all(later - earlier == 200 for earlier, later in pairwise(dues))


def test_a_beat_that_was_silent_for_its_lease_does_nothing_when_it_is_back(site: Site) -> None:
    first, second = site.beat("first"), site.beat("second")
    site.add()
    turn(first, until=lambda: len(site.ticks()) > 1)

    # What it is about to queue is made already, as when a process is frozen at the worst moment.
    turn(second, until=lambda: second.token)
    turn(second, seconds=0.5)
    before = site.ticks()
    first._renew_at = monotonic() + 60
    for _ in range(50):
        first.turn(0.0)

    assert first.token == ""
    assert site.ticks() == before
    assert len(set(before)) == len(before)


def test_another_leads_at_once_after_one_that_resigned(site: Site) -> None:
    first, second = site.beat("first"), site.beat("second")
    turn(first, until=lambda: first.token)
    turn(second, seconds=0.1)
    assert not second.token

    first.resign()
    second._renew_at = 0.0
    second.turn(0.0)

    assert second.token
    assert site.schedules.leader().name == "second"


def test_a_beat_goes_on_leading_while_nothing_is_due(site: Site) -> None:
    leader, other = site.beat(), site.beat("other")
    turn(leader, until=lambda: leader.token)
    token = leader.token

    turn(leader, other, seconds=3 * LEASE_SECONDS)

    assert leader.token == token


def test_who_leads_begins_anew_when_redis_has_lost_its_data(site: Site) -> None:
    begun: list[str] = []
    leader = site.beat()
    leader._on_lead = lambda: iter(begun.append(leader.token) or ())  # type: ignore[func-returns-value]
    turn(leader, until=lambda: begun)
    site.bench.client.flushall()

    turn(leader, until=lambda: len(begun) == 2)

    assert int(begun[1]) > int(begun[0])


# --- each tick once ------------------------------------------------------------------------------------


def test_a_thousand_due_at_one_instant_are_all_queued_once_and_nothing_else_waits(site: Site) -> None:
    began = time()
    for number in range(50):
        site.add(f"job-{number}", Once(began + 3_600))
    at = time() + 3 + 60 * (time() - began)  # when all are there, on this machine today
    for number in range(50):
        site.schedules.edit(f"job-{number}", when=Once(at))
    for number in range(50, 1_000):
        site.add(f"job-{number}", Once(at))
    leader = site.beat()

    turn(leader, until=lambda: len(site.bench.ready()) == 1_000)
    turn(leader, seconds=0.2)

    assert Counter(name for name, _ in site.ticks()) == Counter(f"job-{number}" for number in range(1_000))
    assert {known.state for known in site.schedules.all()} == {"ended"}


def test_a_tick_whose_answer_did_not_come_is_queued_once(site: Site) -> None:
    leader = site.beat()
    site.add()
    turn(leader, until=lambda: site.ticks())

    for _ in range(10):
        site.bench.client.client_kill_filter(_type="normal", skipme=True)
        turn(leader, seconds=0.15)

    dues = [due for _, due in site.ticks()]
    assert len(dues) == len(set(dues)) >= 5


def test_the_id_of_a_tick_follows_from_its_schedule_and_its_due_time(site: Site) -> None:
    leader = site.beat()
    site.add()
    turn(leader, until=lambda: site.ticks())

    [*_, tick] = site.schedules.ticks("job")

    assert tick.id == tick_id("job", round(tick.due_at * 1_000))
    assert tick.due_at <= tick.sent_at < tick.due_at + 0.5


def test_a_full_redis_holds_ticks_up_and_loses_none(site: Site, server: RedisServer) -> None:
    leader = site.beat()
    site.add(misfire="catch_up")
    turn(leader, until=lambda: site.ticks())
    server.client.config_set("maxmemory", 1)
    try:
        turn(leader, seconds=1.0)
        held = len(site.ticks())
    finally:
        server.client.config_set("maxmemory", 0)

    turn(leader, until=lambda: len(site.ticks()) > held + 5)

    dues = [due for _, due in site.ticks()]
    assert all(later - earlier == 200 for earlier, later in pairwise(dues))


def test_a_tick_due_in_the_last_millisecond_of_a_look_is_read_by_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = site.beat()
    leader._lead()
    site.add(when=Interval(2.0, anchor_at=round(time() + 0.3, 3)))
    site.bench.client.delete(site.bench.keys("schedules_wake"))
    due_at = site.schedules.get("job").due_at or 0.0
    monkeypatch.setattr(leader._clock, "now_ms", lambda: round(due_at * 1_000) - 0.4)
    leader._look()
    monkeypatch.undo()

    turn(leader, seconds=5.0)

    assert len(site.ticks()) == 3


def test_an_edit_of_what_ticked_meanwhile_sends_no_tick_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = site.beat()
    site.add(when=Interval(0.5))
    turn(leader, until=lambda: len(site.ticks()) == 1)
    known = site.schedules.get("job")
    turn(leader, until=lambda: len(site.ticks()) == 2)
    monkeypatch.setattr(site.schedules, "get", lambda _: known)

    site.schedules.edit("job", args=(1,))
    turn(leader, seconds=0.8)

    dues = [due for _, due in site.ticks()]
    assert len(set(dues)) == len(dues) >= 3


def test_a_due_time_that_was_passed_is_passed_also_when_the_clock_was_set_back(site: Site) -> None:
    leader = site.beat()
    schedule = site.add("job")
    turn(leader, until=lambda: len(site.ticks()) > 2)
    first, last = site.ticks()[0][1], site.ticks()[-1][1]

    # What an edit writes while Redis' clock is back at the first of them.
    site.schedules._write(schedule, "edit", (first, first))
    turn(leader, until=lambda: site.ticks()[-1][1] > last)

    dues = [due for _, due in site.ticks()]
    assert dues == list(range(first, dues[-1] + 1, 200))


def test_jitter_keeps_ticks_in_their_order_and_drops_none(site: Site) -> None:
    leader = site.beat()
    site.add(jitter_seconds=1.0)

    turn(leader, seconds=3.0)

    assert site.schedules.get("job").missed == 0
    dues = [due for _, due in site.ticks()]
    assert all(later - earlier == 200 for earlier, later in pairwise(dues))


# --- what is in the way -------------------------------------------------------------------------------


def spoil(site: Site, how: str) -> None:
    key = site.bench.keys("schedule", "job")
    if how in ("due", "runs"):
        site.bench.client.hset(key, how, "garbage")
        return
    site.bench.client.delete(key)
    if how == "wrong type":
        site.bench.client.set(key, "x")


@pytest.mark.parametrize("how", ["due", "runs", "gone", "wrong type"])
def test_one_that_is_spoilt_is_met_once_and_the_others_tick(site: Site, how: str) -> None:
    leader = site.beat()
    site.add()
    site.add("other")
    spoil(site, how)

    turn(leader, until=lambda: len(site.ticks()) > 2)

    assert {name for name, _ in site.ticks()} == {"other"}
    assert site.bench.client.zscore(site.bench.keys("schedules_due"), "job") is None


def test_a_change_whose_token_somebody_else_took_is_seen_all_the_same(site: Site) -> None:
    leader = site.beat()
    turn(leader, until=lambda: leader.token)
    turn(leader, seconds=0.2)

    site.add(when=Once(time() + 0.7))
    site.bench.client.delete(site.bench.keys("schedules_wake"))

    turn(leader, until=lambda: site.ticks())
    assert site.schedules.ticks("job")[0].sent_at - site.schedules.ticks("job")[0].due_at < 0.6


# --- what nobody was there for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"misfire": "once"}, 1),
        ({"misfire": "catch_up", "catch_up_most": 3}, 3),
        ({"misfire": "skip", "grace_seconds": 0.3}, 0),
    ],
)
def test_due_times_that_were_missed_go_by_their_policy(site: Site, policy: dict[str, Any], expected: int) -> None:
    site.add(when=Once(time() + 0.7), name="first")
    schedule = site.add(when=Interval(0.1), end_at=time() + 1.05, **policy)
    passed = len(list(schedule.timing().between(time(), time() + 2, 100)))
    eventually(lambda: time() > (schedule.end_at or 0) + 0.5)
    leader = site.beat()

    turn(leader, until=lambda: ("first" in dict(site.ticks())) and site.schedules.get("job").state == "ended")

    known = site.schedules.get("job")
    ticks = [due for name, due in site.ticks() if name == "job"]
    assert len(ticks) == known.runs == expected
    assert abs(known.missed + expected - passed) <= 1  # one may have come between the adding and the counting
    assert ticks == sorted(ticks)


# --- changed while it runs ---------------------------------------------------------------------------


def test_what_is_added_changed_or_paused_takes_effect_at_once(site: Site) -> None:
    leader = site.beat()
    turn(leader, until=lambda: leader.token)
    running = threading.Event()

    def lead() -> None:
        while not running.is_set():
            leader.turn(30.0)

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        site.add(when=Interval(3_600.0))
        site.schedules.edit("job", when=Once(time() + 0.1))
        eventually(lambda: site.ticks())
        site.schedules.edit("job", when=Interval(0.1))
        eventually(lambda: len(site.ticks()) > 3)
        site.schedules.pause("job")
        count = len(site.ticks())
        eventually(lambda: site.schedules.get("job").state == "paused")
        began = time()
        eventually(lambda: time() > began + 0.5)
        assert len(site.ticks()) <= count + 1
        site.schedules.resume("job")
        eventually(lambda: len(site.ticks()) > count + 2)
        site.schedules.remove("job")
        assert list(site.schedules.all()) == []
    finally:
        running.set()
        site.add("last", Once(time() + 60))
        thread.join(5)


def test_a_broken_schedule_is_set_aside_with_its_error_and_holds_nobody_up(site: Site) -> None:
    leader = site.beat()
    site.add("nowhere", queue="nowhere")
    site.add("garbled")
    site.bench.client.hset(site.bench.keys("schedule", "garbled"), "about", b"\xff{")
    site.add("well")

    turn(leader, until=lambda: site.ticks())

    assert {name for name, _ in site.ticks()} == {"well"}
    eventually(lambda: leader.turn(0.02) or site.schedules.get("nowhere").broken)
    assert "there is none of that name" in site.schedules.get("nowhere").broken
    assert "cannot be read" in site.schedules.get("garbled").broken
    site.schedules.edit("nowhere", queue="q1")
    turn(leader, until=lambda: "nowhere" in dict(site.ticks()))
    assert site.schedules.get("nowhere").state == "active"


def test_a_server_that_is_away_while_a_message_is_made_sets_nothing_aside(site: Site) -> None:
    away = [True, True, False]

    def make_when_it_is_there(schedule: Schedule, due_ms: int, identity: str) -> Sequence[Message]:
        if away and away.pop():
            raise BrokerUnavailable(schedule.task, identity, 5.0, "connection refused")
        return make(schedule, due_ms, identity)

    leader = site.beat(made_by=make_when_it_is_there)
    site.add("job")

    turn(leader, until=lambda: len(site.ticks()) > 1)

    assert not away
    assert site.schedules.get("job").state == "active"
    dues = [due for _, due in site.ticks()]
    assert dues == list(range(dues[0], dues[-1] + 1, 200))


def test_schedules_are_found_added_and_refused_by_name(site: Site) -> None:
    site.add("b", Cron("0 3 * * MON-FRI", "Europe/Berlin"), kwargs={"to": "ü"}, excluded=schedule_days())
    site.add("a")
    site.add("ab")

    assert [known.schedule.name for known in site.schedules.all()] == ["a", "ab", "b"]
    assert [known.schedule.name for known in site.schedules.all("a")] == ["a", "ab"]
    kept = site.schedules.get("b").schedule
    assert schedule_from(kept.as_dict()) == kept
    with pytest.raises(ScheduleExists, match="a schedule named 'a' already exists; edit it"):
        site.add("a")
    with pytest.raises(UnknownSchedule, match="no schedule named 'abc'; did you mean 'ab'"):
        site.schedules.get("abc")
    with pytest.raises(BadSchedule, match="did you mean 'priority'"):
        site.schedules.edit("a", prioritty=3)


def schedule_days() -> Any:
    from datetime import date

    return ((date(2026, 12, 24), date(2027, 1, 1)),)


# --- how its runs end ----------------------------------------------------------------------------------


def due_ms_of(site: Site, tick: str, name: str = "job") -> int:
    return next(round(each.due_at * 1_000) for each in site.schedules.ticks(name) if each.id == tick)


def ended(site: Site, tick: str, state: str = "SUCCESS") -> None:
    """Let a node run what is queued first, and tell that the run of ``tick`` ended so."""
    tell(site, EndOfTick("job", tick, due_ms_of(site, tick), state, 7))


def tell(site: Site, end: EndOfTick) -> None:
    """Let a node run what is queued first; it names ``end`` as the tick that ended."""
    node = site.bench.node()
    [claimed] = node.take(1, ["q1"])
    settlement = Settlement()
    settlement.tick = end
    node.settle(claimed.tag, settlement)
    node.done()


def test_while_the_last_run_is_unfinished_ticks_are_skipped(site: Site) -> None:
    leader = site.beat()
    site.add(overlap="skip")
    turn(leader, until=lambda: site.schedules.get("job").skipped >= 2)
    first = site.schedules.get("job").unfinished
    assert len(site.ticks()) == 1

    ended(site, first)
    turn(leader, until=lambda: len(site.ticks()) == 1)

    states = [tick.state for tick in site.schedules.ticks("job")]
    assert "SUCCESS" in states
    assert site.schedules.get("job").runs == 2


def test_one_tick_waits_for_the_run_before_it_and_is_queued_in_the_step_that_ends_that(site: Site) -> None:
    leader = site.beat()
    site.add(overlap="queue")
    turn(leader, until=lambda: site.schedules.get("job").skipped >= 1)
    first = site.schedules.get("job").unfinished
    [waiting] = [tick.id for tick in site.schedules.ticks("job") if tick.state == "WAITING"]

    ended(site, first)

    assert site.schedules.get("job").unfinished == waiting
    assert len(site.ticks()) == 1


@pytest.mark.parametrize("how", ["due", "after the run before it", "by hand"])
def test_a_tick_has_waited_since_it_was_queued(how: str, site: Site) -> None:
    """Its message is made before that: up to two seconds, or as long as the run before it takes."""

    def made_long_ago(schedule: Schedule, due_ms: int, identity: str) -> list[Message]:
        headers = {"id": identity, "task": TASK, SENT_AT_HEADER: time() - 1_200}
        blob = pack_task(("[]", "application/json", "utf-8"), headers, 0, None, None, "", "q1")
        return [Message("q1", 0, 0, identity, blob)]

    site.schedules = Schedules(Link(site.bench.connect), site.bench.options.prefix, made_long_ago)
    leader = site.beat(made_by=made_long_ago)
    if how == "by hand":
        site.add(when=Interval(3_600))
        site.schedules.run_now("job")
    else:
        site.add(overlap="queue")
        turn(leader, until=lambda: site.schedules.get("job").skipped >= 1)
    if how == "after the run before it":
        ended(site, site.schedules.get("job").unfinished)

    [blob] = site.bench.ready()
    assert abs((ready_at_of(unpack(unseal(blob))["headers"]) or 0.0) - time()) < 600


def test_a_tick_cancels_the_run_before_it(site: Site) -> None:
    leader = site.beat()
    site.add(overlap="cancel")
    turn(leader, until=lambda: len(site.ticks()) == 2)

    *_, first = site.schedules.ticks("job")
    assert site.canceled[0] == first.id


def test_a_run_that_is_not_heard_of_counts_as_finished_after_a_while(site: Site) -> None:
    leader = site.beat()
    site.add(overlap="skip", unfinished_seconds=0.5)

    turn(leader, until=lambda: len(site.ticks()) == 2)

    assert site.schedules.get("job").skipped >= 1


def test_a_schedule_that_fails_again_and_again_pauses(site: Site) -> None:
    leader = site.beat()
    site.add(pause_after_failures=2)
    for _ in range(2):
        turn(leader, until=lambda: site.ticks())
        ended(site, site.schedules.get("job").unfinished, "FAILURE")

    known = site.schedules.get("job")
    assert (known.state, known.paused) == ("paused", "failed 2 times in a row")
    site.schedules.resume("job")
    assert site.schedules.get("job").failures == 0


def named(site: Site, what: str) -> tuple[str, int]:
    """Return id and due time that the headers of a task may name and that are no unfinished tick of ``job``."""
    running = site.schedules.get("job").unfinished
    if what == "an id of its own":
        return "elsewhere", due_ms_of(site, running)
    if what == "the id of a tick with another due time":
        return running, due_ms_of(site, running) + 1
    if what == "a tick to come":
        due_ms = round((site.schedules.get("job").due_at or 0) * 1_000) + 3_600_000
        return tick_id("job", due_ms), due_ms
    if what == "a tick of another schedule":
        other = site.schedules.ticks("other")[0]
        return other.id, round(other.due_at * 1_000)
    waiting = next(tick for tick in site.schedules.ticks("job") if tick.state == what)
    return waiting.id, round(waiting.due_at * 1_000)


@pytest.mark.parametrize("state", ["FAILURE", "SUCCESS"])
@pytest.mark.parametrize(
    "what",
    [
        "an id of its own",
        "the id of a tick with another due time",
        "a tick to come",
        "a tick of another schedule",
        "WAITING",
        "SKIPPED",
    ],
)
def test_what_a_schedule_has_not_sent_changes_nothing_of_it(what: str, state: str, site: Site) -> None:
    leader = site.beat()
    site.add(pause_after_failures=1, overlap="queue")
    site.add("other", when=Interval(0.2), max_runs=1)
    turn(leader, until=lambda: site.schedules.get("job").skipped and site.schedules.ticks("other"))
    site.schedules.pause("job")
    site.schedules.link.command("HDEL", site.schedules.keys("schedule", "job"), "paused")
    before = site.schedules.get("job"), site.schedules.ticks("job")

    tell(site, EndOfTick("job", *named(site, what), state, 7))

    assert (site.schedules.get("job"), site.schedules.ticks("job")) == before


def test_every_tick_under_way_counts_however_many_there_are(site: Site) -> None:
    site.add(when=Interval(3_600.0), pause_after_failures=RUNS_KEPT + 5)
    sent = site.schedules.backfill("job", 0.0, (RUNS_KEPT + 5) * 3_600.0)

    for due_at, identity in sent[:-1]:
        tell(site, EndOfTick("job", identity, round(due_at * 1_000), "FAILURE", 7))
    assert site.schedules.get("job").failures == RUNS_KEPT + 4
    due_at, identity = sent[-1]
    tell(site, EndOfTick("job", identity, round(due_at * 1_000), "FAILURE", 7))

    assert site.schedules.get("job").paused == f"failed {RUNS_KEPT + 5} times in a row"
    assert site.schedules.link.command("EXISTS", site.schedules.keys("schedule_open", "job")) == 0


def test_a_tick_that_is_replayed_does_not_fail_twice_and_may_come_through(site: Site) -> None:
    site.add(when=Interval(3_600.0), pause_after_failures=2)
    [(due_at, identity)] = site.schedules.backfill("job", 0.0, 3_600.0)
    tell(site, EndOfTick("job", identity, round(due_at * 1_000), "FAILURE", 7))

    for state, failures in (("FAILURE", 1), ("SUCCESS", 0)):
        site.bench.push("q1", identity)
        tell(site, EndOfTick("job", identity, round(due_at * 1_000), state, 7))
        assert site.schedules.get("job").failures == failures
        assert site.schedules.ticks("job")[0].state == state


def test_a_tick_queued_by_an_older_release_counts_as_long_as_it_is_shown(site: Site) -> None:
    site.add(when=Interval(3_600.0), pause_after_failures=1)
    site.schedules.run_now("job")
    site.schedules.link.command("DEL", site.schedules.keys("schedule_open", "job"))

    ended(site, site.schedules.ticks("job")[0].id, "FAILURE")

    assert site.schedules.get("job").state == "paused"


def test_ticks_that_never_end_are_forgotten_in_the_end(site: Site) -> None:
    site.add(when=Interval(3_600.0))
    key = site.schedules.keys("schedule_open", "job")
    site.bench.client.zadd(key, {f"{number}:lost": number for number in range(20_000)})

    site.schedules.run_now("job")

    assert site.bench.client.zcard(key) == 20_000
    assert site.bench.client.zscore(key, "0:lost") is None


@pytest.mark.parametrize("schedule", ["job", "none of that name"])
def test_what_no_schedule_has_sent_takes_no_ticks_place_on_another_broker(schedule: str, site: Site) -> None:
    site.add(when=Interval(3_600.0))
    due_ms = round((site.schedules.get("job").due_at or 0) * 1_000)
    link, prefix, identity = site.schedules.link, site.schedules.prefix, tick_id("job", due_ms)
    forged = (schedule, identity, due_ms)
    assert link.run("run_tick", prefix, 0, *forged, "forged", 0, 0, 60) == b"run"
    assert link.run("end_tick", prefix, 0, *forged, "FAILURE", 7, "forged", 0, 60) == 0

    site.bench.client.zadd(site.schedules.keys("schedule_open", "job"), {f"{due_ms}:{identity}": 1})
    asked = ("job", identity, due_ms)

    assert link.run("run_tick", prefix, 0, *asked, "one", 0, 0, 60) == b"run"
    assert link.run("run_tick", prefix, 0, *asked, "another", 0, 0, 60) == b"running"
    assert link.run("end_tick", prefix, 0, *asked, "SUCCESS", 7, "one", 0, 60) == 1
    assert link.run("run_tick", prefix, 0, *asked, "another", 0, 0, 60) == b"ended"


def test_copies_of_a_tick_are_told_apart_after_its_schedule_was_removed(site: Site) -> None:
    site.add(when=Interval(3_600.0))
    site.schedules.run_now("job")
    [tick] = site.schedules.ticks("job")
    asked = ("job", tick.id, round(tick.due_at * 1_000))

    site.schedules.remove("job")

    link, prefix, key = site.schedules.link, site.schedules.prefix, site.schedules.keys("schedule_open", "job")
    assert site.bench.client.ttl(key) > 0
    assert link.run("run_tick", prefix, 0, *asked, "one", 0, 0, 60) == b"run"
    assert link.run("run_tick", prefix, 0, *asked, "another", 0, 0, 60) == b"running"
    site.add(when=Interval(3_600.0))
    assert site.bench.client.ttl(key) == -1


def test_a_schedule_ends_after_its_runs_and_keeps_the_last_of_them(site: Site) -> None:
    leader = site.beat()
    site.add(when=Interval(0.1), max_runs=RUNS_KEPT + 2, misfire="catch_up")

    turn(leader, until=lambda: site.schedules.get("job").state == "ended")

    assert len(site.ticks()) == RUNS_KEPT + 2
    assert len(site.schedules.ticks("job")) == RUNS_KEPT


# --- by hand -------------------------------------------------------------------------------------------


def test_a_run_by_hand_and_a_backfill_move_no_due_time(site: Site) -> None:
    site.add(when=Interval(3_600.0))
    due_at = site.schedules.get("job").due_at

    site.schedules.run_now("job")
    planned = site.schedules.backfill("job", 0.0, 3 * 3_600.0, dry_run=True)
    assert len(site.ticks()) == 1
    sent = site.schedules.backfill("job", 0.0, 3 * 3_600.0)

    assert sent == planned
    assert [due for _, due in site.ticks()][1:] == [0, 3_600_000, 7_200_000]
    assert site.schedules.get("job").due_at == due_at


def test_a_calendar_that_changes_moves_the_schedules_that_follow_it(site: Site) -> None:
    site.schedules.set_calendar("holidays", [])
    site.add(when=Interval(3_600.0), calendar="holidays")

    assert site.schedules.set_calendar("holidays", ["2000-01-01/2029-12-31"]) == 1
    assert site.schedules.get("job").due_at == 1_893_456_000.0  # 2030-01-01
    with pytest.raises(BadSchedule, match="no calendar has that name; add it"):
        site.add("other", calendar="holiday")


def test_keys_carry_the_prefix(make_bench: Callable[..., Bench]) -> None:
    site = Site(make_bench(prefix="test:"))
    leader = site.beat()
    site.add()
    turn(leader, until=lambda: site.bench.ready())
    site.close()

    assert {key.split(b":")[0] for key in site.bench.client.scan_iter()} == {b"test"}
    assert Options(prefix="test:").prefix == site.bench.options.prefix


# --- in numbers --------------------------------------------------------------------------------------


def states(site: Site) -> dict[str, int]:
    return {state: number for state, number in site.schedules.overview().states.items() if number}


def test_the_numbers_of_each_state_are_those_of_the_schedules(site: Site) -> None:
    leader = site.beat()
    for name in ("a", "b", "c", "d"):
        site.add(name, when=Interval(3_600.0))
    site.add("once", when=Once(time() + 0.1))
    site.add("job", pause_after_failures=1)
    turn(leader, until=lambda: dict(site.ticks()).keys() == {"once", "job"})
    ended(site, site.schedules.get("job").unfinished, "FAILURE")
    site.schedules.pause("a")
    site.schedules.pause("b")
    for name in ("b", "c"):
        site.schedules.link.run("schedules/pause", site.schedules.prefix, 0, name, "broken", "no such queue", "")

    assert states(site) == {"active": 1, "paused": 2, "broken": 2, "ended": 1}
    assert Counter(known.state for known in site.schedules.all()) == Counter(states(site))
    site.schedules.edit("b", args=(1,))
    site.schedules.resume("a")
    assert states(site) == {"active": 2, "paused": 2, "broken": 1, "ended": 1}
    for known in list(site.schedules.all()):
        site.schedules.remove(known.schedule.name)
    assert states(site) == {}


def test_lateness_grows_while_no_beat_leads_and_is_none_when_one_does(site: Site) -> None:
    assert site.schedules.overview()[1:] == (0.0, None)
    site.add(when=Interval(0.3))
    eventually(lambda: site.schedules.overview().late_seconds > 0.7)
    leader = site.beat()

    turn(leader, until=lambda: site.ticks() and site.schedules.overview().late_seconds < 0.3)

    seen = site.schedules.overview()
    assert seen.tick_at is not None
    assert abs(seen.tick_at - time()) < 20
