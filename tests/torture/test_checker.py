"""The checker: a correct history has no violation; any single change of it is found, and called by its name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.torture.checker import LOG, Finding, History, LogRow, Report, check
from gapless.torture.content import EVERYTHING
from gapless.torture.kinds import KINDS, Promise
from gapless.torture.plan import ClientPlan
from tests.torture.histories import EPOCH, correct, events_of, fault, spoilt

PROMISES = {Promise.once: "sse", Promise.qos1: "paho1", Promise.qos2: "paho2"}


def kinds(report: Report) -> set[str]:
    return {finding.kind.value for finding in report.findings}


@st.composite
def histories(draw: st.DrawFn) -> tuple[History, str]:
    """A correct history, and a client of it that heard at least two events."""
    history = correct(draw(st.integers(0, 1000)), clients=draw(st.integers(1, 6)), events=draw(st.integers(20, 60)))
    heard = [name for name, lines in history.clients.items() if len(events_of(list(lines))) >= 2]
    return history, draw(st.sampled_from(heard))


def only(report: Report) -> Finding:
    [finding] = report.findings
    return finding


@given(histories())
def test_correct_history(drawn: tuple[History, str]) -> None:
    history, _ = drawn
    report = check(history)
    assert report.findings == ()
    assert report.allowed == {}
    assert report.acknowledged == report.stored == len(history.log)
    assert report.checked == sum(len(events_of(list(lines))) for lines in history.clients.values())


@given(histories(), st.data())
def test_any_deletion_is_lost(drawn: tuple[History, str], data: st.DataObject) -> None:
    history, client = drawn
    mine, lines = spoilt(history, client)
    gone = lines.pop(data.draw(st.sampled_from(events_of(lines))))
    found = only(check(mine))
    assert (found.kind, found.client, found.event) == ("lost", client, gone["key"])


@given(histories(), st.data())
def test_any_copy_is_duplicated(drawn: tuple[History, str], data: st.DataObject) -> None:
    history, client = drawn
    mine, lines = spoilt(history, client)
    index = data.draw(st.sampled_from(events_of(lines)))
    lines.insert(data.draw(st.integers(index + 1, len(lines))), dict(lines[index]))
    found = only(check(mine))
    assert (found.kind, found.client, found.event) == ("duplicated", client, lines[index]["key"])


@given(histories(), st.data())
def test_any_swap_is_reordered(drawn: tuple[History, str], data: st.DataObject) -> None:
    history, client = drawn
    mine, lines = spoilt(history, client)
    one, other = sorted(data.draw(st.lists(st.sampled_from(events_of(lines)), min_size=2, max_size=2, unique=True)))
    lines[one], lines[other] = lines[other], lines[one]
    report = check(mine)
    assert kinds(report) == {"reordered"}
    assert {finding.client for finding in report.findings} == {client}
    assert lines[other]["key"] in {finding.event for finding in report.findings}


@given(histories(), st.data(), st.sampled_from([("sha", "0" * 16), ("pos", f"{EPOCH}:9999"), ("pos", "other:1")]))
def test_any_alteration_is_found(drawn: tuple[History, str], data: st.DataObject, change: tuple[str, str]) -> None:
    history, client = drawn
    mine, lines = spoilt(history, client)
    line = lines[data.draw(st.sampled_from(events_of(lines)))]
    line[change[0]] = change[1]
    found = only(check(mine))
    assert (found.kind, found.client, found.event) == ("altered", client, line["key"])


@given(histories(), st.data(), st.sampled_from(["nobody/1", "rest/99999", "?"]))
def test_any_invention_is_found(drawn: tuple[History, str], data: st.DataObject, key: str) -> None:
    history, client = drawn
    mine, lines = spoilt(history, client)
    line = {**lines[events_of(lines)[0]], "key": key}
    lines.insert(data.draw(st.integers(2, len(lines))), line)
    found = only(check(mine))
    assert (found.kind, found.client, found.event) == ("invented", client, key)


@given(histories(), st.data())
def test_what_the_log_lost_is_found(drawn: tuple[History, str], data: st.DataObject) -> None:
    history, _ = drawn
    rows = list(history.log)
    gone = rows.pop(data.draw(st.integers(0, len(rows) - 1)))
    report = check(msgspec.structs.replace(history, log=rows))
    assert ("lost", LOG, gone.key) in {(f.kind, f.client, f.event) for f in report.findings}
    # Who heard it heard what is not in the log.
    assert kinds(report) <= {"lost", "invented"}


@given(histories(), st.data())
def test_what_the_log_has_twice_is_found(drawn: tuple[History, str], data: st.DataObject) -> None:
    history, _ = drawn
    row = history.log[data.draw(st.integers(0, len(history.log) - 1))]
    again = LogRow(len(history.log) + 1, "another", row.key, row.sha)
    found = only(check(msgspec.structs.replace(history, log=[*history.log, again])))
    assert (found.kind, found.client, found.event) == ("duplicated", LOG, row.key)


def one_client(kind: str) -> tuple[History, list[dict[str, Any]]]:
    client = ClientPlan(f"{kind}-0", kind, (EVERYTHING,))
    return spoilt(correct(1, clients_are=(client,)), client.name)


def again(lines: list[dict[str, Any]], *, dup: bool = False) -> None:
    """A new connection, on which the last event comes again."""
    copy = dict(lines[-1])
    lines.append({"t": 200.0, "is": "connection"})
    lines.append(copy | {"t": 201.0} | ({"dup": dup} if "dup" in copy else {}))


@pytest.mark.parametrize("promise", Promise)
@pytest.mark.parametrize("dup", [False, True])
@pytest.mark.parametrize("kind", [None, "gateway-kill", "disk-full", "gateway-pause", "broker-kill"])
def test_only_a_session_at_qos_1_may_repeat_and_only_for_its_reasons(
    promise: Promise, dup: bool, kind: str | None
) -> None:
    history, lines = one_client(PROMISES[promise])
    again(lines, dup=dup)
    faults = [] if kind is None else [fault(kind, kind.split("-")[0].replace("disk", "gateway"), 100.0, 101.0)]
    report = check(msgspec.structs.replace(history, faults=faults))
    is_allowed = promise is Promise.qos1 and (dup or kind in ("gateway-kill", "disk-full"))
    assert kinds(report) == (set() if is_allowed else {"duplicated"})
    assert sum(report.allowed.values()) == is_allowed


def test_a_kill_before_the_connection_or_after_the_repeat_explains_nothing() -> None:
    for began in (-10.0, 300.0):
        history, lines = one_client("paho1")
        again(lines)
        report = check(msgspec.structs.replace(history, faults=[fault("gateway-kill", "gateway", began, began + 1)]))
        assert kinds(report) == {"duplicated"}


def test_messages_of_different_qos_have_no_order_among_each_other() -> None:
    history, lines = one_client("paho2")
    first, second = events_of(lines)[:2]
    lines[first]["qos"] = 1
    lines[first], lines[second] = lines[second], lines[first]
    assert check(history).findings == ()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"is": "hole", "pos": f"{EPOCH}:3"}, "incomplete"),
        ({"is": "connection", "recovered": False}, "forgotten"),
        ({"is": "connection", "session": False}, "forgotten"),
        ({"is": "refused", "why": "no"}, "refused"),
    ],
)
def test_what_the_gateway_should_not_have_said(line: dict[str, Any], kind: str) -> None:
    history, lines = one_client("js-socketio")
    lines.append({"t": 300.0, **line})
    assert only(check(history)).kind == kind


def test_event_of_a_room_that_the_client_is_not_in() -> None:
    client = ClientPlan("sse-0", "sse", ("lead:1",))
    everything = ClientPlan("sse-1", "sse", (EVERYTHING,))
    history, lines = spoilt(correct(1, clients_are=(client, everything)), "sse-0")
    keys = {line["key"] for line in lines if line["is"] == "event"}
    stray = next(line for line in history.clients["sse-1"] if line["is"] == "event" and line["key"] not in keys)
    lines.append(dict(stray) | {"t": 500.0})
    assert "invented" in kinds(check(history))


def test_publisher_that_did_not_finish() -> None:
    history = correct(1)
    lines = history.publishers["rest"]
    assert isinstance(lines, list)
    lines.pop()
    found = only(check(history))
    assert (found.kind, found.client) == ("stuck", "publisher rest")


def test_publisher_whose_client_loses_its_connection_when_all_is_done() -> None:
    history = correct(1)
    lines = history.publishers["rest"]
    assert isinstance(lines, list)
    lines.append({"t": 1001.0, "is": "retry", "why": "Keepalive timeout"})
    assert not check(history).findings


def test_stored_in_another_order_than_acknowledged() -> None:
    history = correct(1, clients_are=())
    rest = [row for row in history.log if row.key.startswith("rest/")]
    log = [
        msgspec.structs.replace(row, offset=rest[1].offset if row is rest[0] else rest[0].offset)
        if row in rest[:2]
        else row
        for row in history.log
    ]
    plan = msgspec.structs.replace(history.plan, clients=())
    report = check(msgspec.structs.replace(history, plan=plan, log=log))
    assert ("reordered", LOG, "rest/1") in {(f.kind, f.client, f.event) for f in report.findings}


def test_process_that_ended_by_itself() -> None:
    history = msgspec.structs.replace(correct(1), ended={"gateway": "Traceback"})
    assert only(check(history)).kind == "ended"


def test_the_fault_before_is_the_last_that_touched_the_client() -> None:
    history, lines = one_client("sse")
    gone = lines.pop(events_of(lines)[10])
    at = gone["t"]
    faults = [
        fault("gateway-kill", "gateway", at - 5, at - 4),
        fault("client-pause", "sse-0", at - 3, at - 2),
        fault("client-pause", "poll-1", at - 1, at),
        fault("link-cut", "sse-0", at + 500, at + 501),
    ]
    found = only(check(msgspec.structs.replace(history, faults=faults)))
    assert found.fault == "client-pause sse-0"
    assert "client-pause sse-0" in str(found)


def test_every_kind_has_a_promise_that_is_checked() -> None:
    assert {kind.promise for kind in KINDS.values()} == set(PROMISES)


# --- at the external broker


def at_broker(kind: str = "broker1") -> tuple[History, list[dict[str, Any]]]:
    client = ClientPlan(f"{kind}-0", kind, (EVERYTHING,))
    return spoilt(correct(1, clients_are=(client,)), client.name)


@pytest.mark.parametrize("between", [True, False])
def test_a_hole_is_the_brokers_own_only_where_it_was_killed(between: bool) -> None:
    history, lines = at_broker()
    gone = [lines.pop(10) for _ in range(3)]
    began = gone[1]["t"] if between else lines[-1]["t"] + 10
    report = check(msgspec.structs.replace(history, faults=[fault("broker-kill", "broker", began, began + 1)]))
    if between:
        assert report.findings == ()
        assert sum(report.allowed.values()) == 3
    else:
        assert [finding.event for finding in report.findings] == [line["key"] for line in gone]
        assert kinds(report) == {"lost"}


def test_what_never_came_again_after_a_kill_of_the_broker_is_lost() -> None:
    history, lines = at_broker()
    del lines[-3:]
    at = lines[-1]["t"] + 0.1
    report = check(msgspec.structs.replace(history, faults=[fault("broker-kill", "broker", at, at + 1)]))
    assert kinds(report) == {"lost"}


@pytest.mark.parametrize(
    ("kind", "fault_kind", "is_allowed"),
    [
        ("broker1", "broker-link-cut", True),
        ("broker1", "gateway-kill", True),
        ("broker1", "broker-kill", True),
        ("broker1", "disk-full", False),
        ("broker1", "gateway-pause", False),
        ("broker2", "broker-kill", True),
        ("broker2", "broker-link-cut", False),
        ("broker2", "gateway-kill", False),
    ],
)
def test_what_the_link_may_repeat(kind: str, fault_kind: str, is_allowed: bool) -> None:
    history, lines = at_broker(kind)
    lines.append(dict(lines[-1]) | {"t": lines[-1]["t"] + 2})
    at = lines[-1]["t"] - 1
    report = check(msgspec.structs.replace(history, faults=[fault(fault_kind, "gateway", at, at + 0.5)]))
    assert kinds(report) == (set() if is_allowed else {"duplicated"})


@pytest.mark.parametrize("before", ["gateway-kill", "broker-link-cut", "disk-full", "gateway-pause"])
@pytest.mark.parametrize("heard_between", [True, False])
def test_qos_2_may_come_again_where_the_gateway_was_killed_before_its_link_was_connected(
    before: str, heard_between: bool
) -> None:
    history, lines = at_broker("broker2")
    again = lines[-2 if heard_between else -1]
    end = lines[-1]["t"]
    lines.append(again | {"t": end + 10})
    first = fault(before, "gateway", again["t"] + 0.01, again["t"] + 0.02)
    report = check(msgspec.structs.replace(history, faults=[first, fault("gateway-kill", "gateway", end + 1, end + 2)]))
    assert kinds(report) == ({"duplicated"} if heard_between or before == "gateway-pause" else set())


@pytest.mark.parametrize("before", [True, False])
def test_what_follows_a_message_that_the_broker_forgot_is_what_follows_at_its_qos(before: bool) -> None:
    """What came at another QoS may have overtaken it."""
    history, lines = at_broker("broker2")
    publisher = lines[20]["key"].rpartition("/")[0]
    alike = [index for index in events_of(lines) if lines[index]["key"].startswith(f"{publisher}/")]
    for index in events_of(lines):
        if index not in alike:
            lines[index]["qos"] = 1
    gone, following = alike[1], alike[2]
    assert following > gone + 1
    kill = lines[following if before else gone + 1]["t"] + 0.01
    del lines[gone]
    report = check(msgspec.structs.replace(history, faults=[fault("broker-kill", "broker", kill, kill + 1)]))
    assert kinds(report) == ({"lost"} if before else set())


def test_what_was_published_at_the_broker_is_strict_for_all_but_the_brokers_own_clients() -> None:
    near, far = ClientPlan("sse-0", "sse", (EVERYTHING,)), ClientPlan("broker1-1", "broker1", (EVERYTHING,))
    history = correct(1, clients_are=(near, far), events=60, broker=True)
    for client, expected in (("sse-0", {"lost"}), ("broker1-1", set())):
        mine, lines = spoilt(history, client)
        index = next(i for i in events_of(lines) if lines[i]["key"].startswith("broker1/"))
        del lines[index]
        assert kinds(check(mine)) == expected
