"""What leaders must agree on."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from taskapp.schedules.times import jitter_ms, tick_id

DUE_MS = 1_800_000_000_000


def test_a_ticks_id_is_a_uuid_of_name_and_due_time_and_stays_so():
    assert tick_id("nightly", DUE_MS) == tick_id("nightly", DUE_MS)
    assert uuid.UUID(tick_id("nightly", DUE_MS)).version == 5
    # Written down: a changed id would send ticks twice across an upgrade.
    assert tick_id("nightly", DUE_MS) == "1f762259-8141-536e-ae5c-a1999afc26f8"
    assert jitter_ms("nightly", DUE_MS, 60_000) == 7622


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 10**13)), unique=True))
def test_no_two_ticks_have_the_same_id(ticks):
    assert len({tick_id(*tick) for tick in ticks}) == len(ticks)


def test_another_process_draws_the_same():
    code = f"from taskapp.schedules.times import *; print(tick_id('ä', {DUE_MS}), jitter_ms('ä', {DUE_MS}, 10**6))"
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }

    assert seen == {f"{tick_id('ä', DUE_MS)} {jitter_ms('ä', DUE_MS, 10**6)}"}


def test_jitter_is_spread_evenly_and_stays_below_its_width():
    drawn = Counter(jitter_ms(f"schedule-{n}", DUE_MS, 10) for n in range(10_000))

    assert sorted(drawn) == list(range(10))
    assert all(850 < count < 1150 for count in drawn.values())
    assert jitter_ms("nightly", DUE_MS, 0) == jitter_ms("nightly", DUE_MS, -5) == 0
