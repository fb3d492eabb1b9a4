"""Links, chains, groups, chords and replacements are the same for coroutines and functions."""

from __future__ import annotations

import pytest
from celery import chain, chord, group

from tests.integration.semantics.conftest import Way
from tests.support import eventually


def test_a_link_gets_the_result(way: Way) -> None:
    key = f"link-{way.form}-{way.queue}"
    result = way.send("double", 4, link=way.s("tell", key))

    assert result.get(timeout=20) == 8
    assert way.sees(key, [8, result.id, result.id]) == [[8, result.id, result.id]]
    (child,) = result.children
    assert child.get(timeout=20) == 8


def test_several_links_and_a_group_all_get_it(way: Way) -> None:
    key = f"links-{way.form}-{way.queue}"
    links = [way.s("tell", f"{key}-1"), way.s("tell", f"{key}-2"), group(way.s("tell", f"{key}-3"))]
    result = way.send("double", 4, link=links)

    for number in (1, 2, 3):
        way.sees(f"{key}-{number}", [8, result.id, result.id])


def test_an_errback_gets_the_error(way: Way) -> None:
    key = f"errback-{way.form}-{way.queue}"
    result = way.send("failing", "no such order", link_error=way.s("mourn", key=key))

    way.failure(result)
    way.sees(key, [result.id, "ValueError('no such order')", True])


def test_an_errback_finds_the_result_of_the_failed_task(way: Way) -> None:
    key = f"stored-{way.form}-{way.queue}"
    result = way.send("failing", "no such order", link_error=way.s("mourn_by_result", key=key))

    way.failure(result)
    way.sees(key, ["FAILURE"])


def test_an_errback_hears_of_a_hard_limit_once(way: Way) -> None:
    key = f"limit-{way.form}-{way.queue}"
    result = way.send("nap", time_limit=0.3, link_error=way.s("mourn", key=key))

    way.failure(result)
    way.sees(key, [result.id, "TimeLimitExceeded(0.3)", False])
    assert way.run("echo", 1) == [[1], {}]
    assert len(way.seen(key)) == 1


def test_a_chain_hands_results_on(way: Way) -> None:
    result = chain(way.s("double", 1), way.s("double"), way.s("describe", 7)).apply_async()
    seen = result.get(timeout=20)

    assert seen["args"] == [4, 7]
    assert seen["parent_id"] == result.parent.id
    assert seen["root_id"] == result.parent.parent.id
    assert [result.parent.get(), result.parent.parent.get()] == [4, 2]


def test_a_failed_step_ends_a_chain(way: Way) -> None:
    key = f"chain-{way.form}-{way.queue}"
    steps = chain(way.s("double", 1), way.s("failing"), way.s("tell", key))
    result = steps.apply_async(link_error=way.s("mourn", key=key))

    assert repr(way.failure(result)).startswith("ValueError")
    (seen,) = way.sees(key, [result.parent.id, "ValueError(2)", True])
    assert seen[1] == "ValueError(2)"


def test_a_group_runs_all_of_its_tasks(way: Way) -> None:
    result = group(way.s("double", number) for number in range(20)).apply_async()

    assert result.get(timeout=20) == [number * 2 for number in range(20)]


def test_a_chord_runs_its_body_once_with_all_results(way: Way) -> None:
    key = f"chord-{way.form}-{way.queue}"
    body = way.s("total") | way.s("tell", key)
    result = chord([way.s("double", number) for number in range(20)])(body)

    assert result.get(timeout=20) == 380
    assert [seen[0] for seen in way.seen(key)] == [380]


def test_a_chord_over_both_forms_runs_its_body(way: Way) -> None:
    other = {"def": "async", "async": "def"}[way.form]
    mixed = [way.app.tasks[f"double.{other}"].s(number).set(queue=way.queue) for number in range(3)]
    result = chord([*mixed, way.s("double", 10)])(way.s("total"))

    assert result.get(timeout=20) == 26


def test_a_failed_part_fails_the_chord(way: Way) -> None:
    key = f"failed-chord-{way.form}-{way.queue}"
    body = way.s("total").on_error(way.s("mourn", key=key))
    result = chord([way.s("double", 1), way.s("failing", "no such part"), way.s("double", 2)])(body)

    assert "no such part" in str(way.failure(result))
    seen = eventually(lambda: way.seen(key))
    assert "no such part" in seen[0][1]


def test_a_retried_part_counts_once(way: Way) -> None:
    result = chord([way.s("flaky", 1), way.s("flaky", 2), way.s("double", 5)])(way.s("total"))

    assert result.get(timeout=20) == 13


def test_a_replaced_task_has_the_result_of_what_replaced_it(way: Way) -> None:
    assert way.run("substitute", 4) == 8


def test_a_replaced_part_counts_with_what_replaced_it(way: Way) -> None:
    result = chord([way.s("substitute", 4), way.s("double", 1)])(way.s("total"))

    assert result.get(timeout=20) == 10


@pytest.mark.parametrize("size", [0, 1])
def test_small_groups_and_chords(way: Way, size: int) -> None:
    parts = [way.s("double", 3) for _ in range(size)]

    assert group(parts).apply_async().get(timeout=20) == [6] * size
    assert chord(parts)(way.s("total")).get(timeout=20) == 6 * size


def test_map_starmap_and_chunks_call_a_task_for_each_item(way: Way) -> None:
    double, add = (way.app.tasks[f"{name}.{way.form}"] for name in ("double", "add_typed"))

    assert double.map([1, 2, 3]).apply_async(queue=way.queue).get(timeout=20) == [2, 4, 6]
    assert add.starmap([(1, 2), (3, 4)]).apply_async(queue=way.queue).get(timeout=20) == [3, 7]
    chunks = add.chunks([(number, number) for number in range(5)], 2)
    assert chunks.apply_async(queue=way.queue).get(timeout=20) == [[0, 2], [4, 6], [8]]
