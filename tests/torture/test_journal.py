"""Journals: what a kill leaves of them."""

from __future__ import annotations

from pathlib import Path

from gapless.torture.journal import Journal, Tail, read_journal


def test_a_line_that_a_kill_cut_short_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Journal(path).write("event", key="rest/1")
    with path.open("ab") as file:
        file.write(b'{"t":1,"is":"eve')
    assert [line["is"] for line in read_journal(path)] == ["event"]
    again = Journal(path)
    assert [line["key"] for line in again.earlier] == ["rest/1"]
    again.write("event", key="rest/2")
    assert [line["key"] for line in read_journal(path)] == ["rest/1", "rest/2"]


def test_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tail = Tail(path)
    assert list(tail.new_lines()) == []
    journal = Journal(path)
    journal.write("started", pid=1)
    assert [line["is"] for line in tail.new_lines()] == ["started"]
    with path.open("ab") as file:
        file.write(b'{"t":1,"is":"connected"')
    assert list(tail.new_lines()) == []
    with path.open("ab") as file:
        file.write(b"}\n")
    assert [line["is"] for line in tail.new_lines()] == ["connected"]
