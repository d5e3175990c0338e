"""Shared runs: kept by key, the least recently used go first, large ones are not kept."""

from __future__ import annotations

from gapless.delivery.runs import LARGEST_RUN, MOST_RUNS, SharedRuns


def test_a_run_is_found_again_under_its_key_alone() -> None:
    runs = SharedRuns()
    run = object()
    runs.put(("mqtt", 1), run, 10)
    assert runs.get(("mqtt", 1)) is run
    assert runs.get(("mqtt", 2)) is None


def test_those_that_were_not_asked_for_longest_go_first() -> None:
    runs = SharedRuns()
    for number in range(MOST_RUNS):
        runs.put(number, f"run {number}", 1)
    assert runs.get(0) == "run 0"
    runs.put("new", "another", 1)
    assert runs.get(0) == "run 0"
    assert runs.get(1) is None
    assert [runs.get(number) for number in (2, MOST_RUNS - 1, "new")] == ["run 2", f"run {MOST_RUNS - 1}", "another"]


def test_a_large_one_is_not_kept() -> None:
    runs = SharedRuns()
    runs.put("fits", 1, LARGEST_RUN)
    runs.put("large", 2, LARGEST_RUN + 1)
    assert (runs.get("fits"), runs.get("large")) == (1, None)
