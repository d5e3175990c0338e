"""The gate as the doors use it: letting in, deciding, revoking, ending."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gapless.auth import Ask, AuthOptions, Certificate, Credentials, Identity, PolicyGate, Question
from gapless.auth.api_keys import create_key, remove_key
from gapless.errors import ConfigError, Forbidden, LogUnavailable, NotDecided, Unauthorized
from gapless.eventlog import MemoryLog, SqliteLog, StateKind
from gapless.topicmap import Row, TopicMap, crm_map
from tests.auth.support import NOW, SECRET, Clock, token


class Connection:
    """A connection, as the gate sees it."""

    def __init__(self) -> None:
        self.ended: Unauthorized | None = None
        self.changes = 0
        self.over = asyncio.Event()

    def access_ended(self, error: Unauthorized) -> None:
        self.ended = error
        self.over.set()

    def access_changed(self) -> None:
        self.changes += 1


def make(clock: Clock | None = None, ask: Ask | None = None, **options: Any) -> PolicyGate:
    settings: dict[str, Any] = {"secret": SECRET, **options}
    return PolicyGate(crm_map(), AuthOptions(**settings), ask=ask, clock=clock or Clock())


@asynccontextmanager
async def running(gate: PolicyGate, log: Any = None) -> AsyncIterator[PolicyGate]:
    log = log or MemoryLog()
    await log.open(lambda records: None)
    await gate.start(log)
    try:
        yield gate
    finally:
        await gate.stop()
        await log.close()


async def enter(gate: PolicyGate, text: str | None = None, **more: Any) -> Identity:
    return await gate.authenticate(Credentials(token=text or token(), door="test", address="10.0.0.1", **more))


# --- letting in


async def test_where_it_came_in_is_kept_with_the_identity() -> None:
    identity = await enter(make(), connection="c1")
    assert (identity.source.door, identity.source.address, identity.source.connection) == ("test", "10.0.0.1", "c1")


async def test_nothing_shown() -> None:
    with pytest.raises(Unauthorized) as caught:
        await make().authenticate(Credentials())
    assert caught.value.details["reason"] == "missing"
    guest = await make(anonymous_roles=("GUEST",)).authenticate(Credentials())
    assert (guest.user_id, guest.roles) == (None, frozenset({"GUEST"}))
    with pytest.raises(Unauthorized):  # what is shown must be right all the same
        await enter(make(anonymous_roles=()), "wrong")


async def test_the_user_name_is_not_believed() -> None:
    assert (await enter(make(), username="1")).user_id == "7"


async def test_certificates() -> None:
    gate = make(certificate_user=r"CN=device-(?P<user>\d+)|URI:urn:user:(?P<other>\d+)", certificate_roles=("DEVICE",))
    shown = Certificate(common_name="device-9", fingerprint="ab" * 32, not_after=NOW + 99)
    identity = await gate.authenticate(Credentials(certificate=shown))
    assert (identity.user_id, identity.roles, identity.expires) == ("9", frozenset({"DEVICE"}), NOW + 99)
    assert (await gate.authenticate(Credentials(certificate=shown, token=token()))).user_id == "7"
    for name in ("device-x", "xdevice-9", "device-9x", None):
        with pytest.raises(Unauthorized):
            await gate.authenticate(Credentials(certificate=Certificate(common_name=name)))
    with pytest.raises(Unauthorized):  # certificates are only taken where the settings say how
        await make().authenticate(Credentials(certificate=shown))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"secret": None}, "names no keys"),
        ({"jwks_url": "file:///etc/passwd"}, "jwks_url"),
        ({"jwks_algorithms": ("HS256",)}, "HS256"),
        ({"certificate_user": "("}, "regular expression"),
        ({"certificate_user": "CN=(.*)"}, "group 'user'"),
        ({"max_lifetime": 0}, "max_lifetime"),
        ({"leeway": -1}, "leeway"),
    ],
)
def test_settings_that_cannot_work(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert named in caught.value.message
    assert caught.value.hint


# --- deciding


async def test_checks_raise_forbidden_and_are_counted() -> None:
    gate = make()
    identity = await enter(gate, token(roles=["SALES"], rooms=["lead:1"]))
    gate.check_subscribe_room(identity, "lead:1")
    gate.check_subscribe_filter(identity, "crm/leads/1/updated")
    gate.check_publish(identity, "crm/users/7/presence")
    denied = [
        (gate.check_subscribe_room, "lead:2"),
        (gate.check_subscribe_filter, "crm/leads/+/updated"),
        (gate.check_publish, "crm/leads/1/updated"),
    ]
    for check, subject in denied:
        with pytest.raises(Forbidden) as caught:
            check(identity, subject)
        assert caught.value.code == "forbidden"
    assert {key: count for key, count in gate.audit.counts.items() if key[0] == "denied"} == {
        ("denied", "test", "room"): 1,
        ("denied", "test", "filter"): 1,
        ("denied", "test", "publish"): 1,
    }


async def test_a_filter_that_covers_too_much_is_told_what_to_ask_for() -> None:
    gate = make()
    identity = await enter(gate, token(roles=["SALES"], rooms=["lead:1"]))
    with pytest.raises(Forbidden) as caught:
        gate.check_subscribe_filter(identity, "crm/leads/1/#")
    assert "crm/leads/1/created, crm/leads/1/updated, crm/leads/1/assigned" in caught.value.hint


async def test_decisions_of_one_token_do_not_serve_another() -> None:
    gate = make()
    first = await enter(gate, token(roles=["MANAGER"], jti="same"))
    gate.check_subscribe_room(first, "org:global")
    second = await enter(gate, token(roles=["SALES"], jti="same"))
    with pytest.raises(Forbidden):
        gate.check_subscribe_room(second, "org:global")


async def test_a_decision_kept_for_a_row_is_the_one_of_each_topic() -> None:
    gate = make()
    manager, sales = await enter(gate, token(roles=["MANAGER"])), await enter(gate, token(roles=["SALES"]))
    topics = ["crm/leads/1/updated", "crm/users/7/presence", "crm/users/8/presence", "$SYS/x", "crm/leads//updated"]
    for _ in range(2):
        assert [publishes(gate, manager, topic) for topic in topics] == [True, True, False, False, True]
        assert [publishes(gate, sales, topic) for topic in topics] == [False, True, False, False, False]
    assert gate.policy.subject_of("crm/leads/1/updated") == "crm/leads/{leadId}/updated"
    assert gate.policy.subject_of("crm/users/7/presence") == "crm/users/7/presence"


async def test_a_row_that_could_hold_server_topics_does_not_open_them() -> None:
    row = Row("{any}/x", "x", publish=("users",))
    gate = PolicyGate(TopicMap([row]), AuthOptions(secret=SECRET), clock=Clock())
    identity = await enter(gate)
    assert publishes(gate, identity, "a/x")
    assert not publishes(gate, identity, "$SYS/x")


def publishes(gate: PolicyGate, identity: Identity, topic: str) -> bool:
    try:
        gate.check_publish(identity, topic)
    except Forbidden:
        return False
    return True


async def test_the_application_decides_after_it_was_asked() -> None:
    asked: list[Question] = []

    async def ask(identity: Identity, question: Question) -> bool:
        asked.append(question)
        return question.subject == "lead:5"

    gate = make(ask=ask)
    identity = await enter(gate, token(roles=["SALES"]))
    with pytest.raises(NotDecided):
        gate.check_subscribe_room(identity, "lead:5")
    await gate.prepare(
        identity, rooms=["lead:5", "user:7"], filters=["crm/leads/6/updated"], topics=["crm/notes/5/collaboration"]
    )
    assert [question.subject for question in asked] == ["lead:5", "lead:6", "note:5"]
    gate.check_subscribe_room(identity, "lead:5")
    gate.check_subscribe_filter(identity, "crm/leads/5/updated")
    for check, subject in ((gate.check_subscribe_room, "lead:6"), (gate.check_publish, "crm/notes/5/collaboration")):
        with pytest.raises(Forbidden) as caught:
            check(identity, subject)
        assert not isinstance(caught.value, NotDecided)
    await gate.prepare(identity, rooms=["lead:5"])
    assert len(asked) == 3
    gate.recheck("7")
    with pytest.raises(NotDecided):
        gate.check_subscribe_room(identity, "lead:5")


async def test_an_answer_that_is_forgotten_on_its_way_is_asked_for_again() -> None:
    """Rights that change twice in a moment must not cost a subscription that both answers allow."""
    asked: asyncio.Queue[asyncio.Future[bool]] = asyncio.Queue()

    async def ask(identity: Identity, question: Question) -> bool:
        said: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asked.put_nowait(said)
        return await said

    gate = make(ask=ask)
    identity = await enter(gate, token(roles=["SALES"]))
    for second in (True, False):
        preparing = asyncio.create_task(gate.prepare(identity, rooms=["lead:5"]))
        first = await asked.get()
        gate.recheck("7")
        first.set_result(not second)
        (await asked.get()).set_result(second)
        await preparing
        if second:
            gate.check_subscribe_room(identity, "lead:5")
        else:
            with pytest.raises(Forbidden):
                gate.check_subscribe_room(identity, "lead:5")
        gate.recheck("7")


async def test_operating_takes_a_role_or_a_back_end() -> None:
    gate = make()
    for roles, operations in ((["ADMIN"], {"metrics", "admin"}), (["METRICS"], {"metrics"}), (["SALES"], set())):
        identity = await enter(gate, token(roles=roles))
        assert {each for each in ("metrics", "admin") if may(gate, identity, each)} == operations
    assert may(gate, Identity(service=True), "admin")
    assert not may(gate, Identity(service=True, roles=frozenset({"OTHER"})), "metrics")


def may(gate: PolicyGate, identity: Identity, operation: Any) -> bool:
    try:
        gate.check_operate(identity, operation)
    except Forbidden:
        return False
    return True


# --- ending


async def test_a_token_that_ends_ends_its_connections() -> None:
    clock = Clock()
    gate = make(clock)
    connection = Connection()
    gate.hold(await enter(gate), connection)
    clock.now += 60
    gate.leases.expire()
    assert connection.ended is not None
    assert connection.ended.details["reason"] == "expired"


async def test_a_revoked_token_is_out_on_every_door() -> None:
    async with running(make()) as gate:
        mine, others = Connection(), Connection()
        gate.hold(await enter(gate, token(jti="a")), mine)
        gate.hold(await enter(gate, token(jti="b")), others)
        _, ended = await gate.revoke("token", "a")
        assert ended == 1
        assert mine.ended is not None
        assert mine.ended.details["reason"] == "revoked"
        assert others.ended is None
        with pytest.raises(Unauthorized) as caught:
            await enter(gate, token(jti="a"))
        assert caught.value.details["reason"] == "revoked"
        await enter(gate, token(jti="b"))


async def test_of_a_user_the_tokens_made_so_far() -> None:
    clock = Clock(NOW + 10.5)
    async with running(make(clock)) as gate:
        connection = Connection()
        gate.hold(await enter(gate), connection)
        await gate.revoke("user", "7")
        assert connection.ended is not None
        for more in ({}, {"iat": NOW + 10}, {"iat": NOW + 10.25}, {"iat": None, "exp": NOW + 99}):
            with pytest.raises(Unauthorized):
                await enter(gate, token(**more))
        await enter(gate, token(sub="8"))
        await enter(gate, token(iat=NOW + 11))


async def test_a_later_revocation_never_gives_an_earlier_one_back() -> None:
    async with running(make(Clock(NOW + 10))) as gate:
        await gate.revoke("user", "7")
        await gate.revoke("user", "7", issued_before=NOW - 100)
        with pytest.raises(Unauthorized):
            await enter(gate, token())


async def test_revocations_outlive_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    async with running(make(clock), SqliteLog(tmp_path / "events.db")) as gate:
        await gate.revoke("user", "7")
        await gate.revoke("token", "a")
    async with running(make(clock), SqliteLog(tmp_path / "events.db")) as gate:
        assert {each.kind for each in gate.revocations.list()} == {"user", "token"}
        with pytest.raises(Unauthorized):
            await enter(gate)
    clock.now += 7 * 86400 + 6  # no token of then can be alive
    log = SqliteLog(tmp_path / "events.db")
    async with running(make(clock), log) as gate:
        assert len(gate.revocations) == 0
        assert await log.all_state(StateKind.REVOCATION) == {}


async def test_what_cannot_be_made_durable_holds_all_the_same_and_says_so() -> None:
    log = MemoryLog()
    async with running(make(), log) as gate:
        connection = Connection()
        gate.hold(await enter(gate), connection)
        await log.close()
        with pytest.raises(LogUnavailable):
            await gate.revoke("user", "7")
        assert connection.ended is not None
        with pytest.raises(Unauthorized):
            await enter(gate)


async def test_a_connection_that_was_let_in_before_and_held_after_a_revocation() -> None:
    async with running(make()) as gate:
        identity = await enter(gate)
        await gate.revoke("user", "7")
        connection = Connection()
        gate.hold(identity, connection)
        await connection.over.wait()
        assert connection.ended is not None


async def test_an_api_key_that_is_removed_ends_its_connections(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "crm")
    async with running(make(api_keys_file=path)) as gate:
        kept, other = Connection(), Connection()
        gate.hold(await enter(gate, key), kept)
        gate.hold(await enter(gate), other)
        remove_key(path, "crm")
        await kept.over.wait()
        assert other.ended is None
        with pytest.raises(Unauthorized):
            await enter(gate, key)


async def test_a_revoked_api_key_and_a_token_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "crm")
    async with running(make(api_keys_file=path)) as gate:
        await gate.revoke("key", "crm")
        with pytest.raises(Unauthorized):
            await enter(gate, key)
        await enter(gate, token(jti="crm"))


async def test_rights_that_changed_are_looked_at_by_those_connections() -> None:
    gate = make()
    mine, others = Connection(), Connection()
    gate.hold(await enter(gate), mine)
    gate.hold(await enter(gate, token(sub="8")), others)
    assert gate.recheck("7") == 1
    assert (mine.changes, others.changes) == (1, 0)
    assert gate.recheck() == 2


async def test_a_will_is_judged_by_what_its_author_may_when_it_is_due() -> None:
    clock = Clock()
    topic = "crm/users/7/presence"
    async with running(make(clock)) as gate:
        author, other = await enter(gate, token(jti="a")), await enter(gate, token(jti="b"))
        with pytest.raises(Forbidden):
            gate.check_will(author, "crm/users/8/presence")
        clock.now += 3600  # its token has merely ended
        gate.check_will(author, topic)
        await gate.revoke("token", "a")
        with pytest.raises(Forbidden):
            gate.check_will(author, topic)
        gate.check_will(other, topic)
        assert gate.audit.counts["denied", "test", "will"] == 1
        clock.now += 7 * 86400
        await gate.revocations.forget()
        for each in (author, other):  # which of the two was revoked is not known any more
            with pytest.raises(Forbidden):
                gate.check_will(each, topic)


# --- the audit log


async def test_the_audit_log_tells_who_and_neither_tokens_nor_payloads(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    key = create_key(tmp_path / "keys.json", "crm")
    text = token(roles=["SALES"], jti="a", private="do-not-tell")
    async with running(make(api_keys_file=tmp_path / "keys.json")) as gate:
        identity = await enter(gate, text, connection="c1")
        lease = gate.hold(identity, Connection())
        lease.renew(identity)
        gate.hold(await enter(gate, key), Connection())
        for check in (gate.check_subscribe_room, gate.check_subscribe_filter, gate.check_publish):
            with pytest.raises(Forbidden):
                check(identity, "crm/leads/9/updated")
        with pytest.raises(Unauthorized):
            await enter(gate, text + "x")
        await gate.revoke("token", "a", by=identity)
    lines = [record for record in caplog.records if record.name == "gapless.audit"]
    events = [vars(record)["event"] for record in lines]
    assert events == [
        *("configured", "connected", "renewed", "connected", "denied", "denied", "denied", "refused"),
        *("revoked", "revocation"),
    ]
    first = vars(lines[1])
    assert (first["user"], first["roles"], first["door"]) == ("7", ["SALES"], "test")
    assert (first["address"], first["connection"]) == ("10.0.0.1", "c1")
    everything = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for secret in (text, key, SECRET, "do-not-tell", text.split(".")[2], key.rpartition("_")[2]):
        assert secret not in everything


async def test_repeated_denials_are_counted_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gapless.audit")
    gate = make()
    identity = await enter(gate)
    for number in range(500):
        with pytest.raises(Forbidden):
            gate.check_publish(identity, f"elsewhere/{number}")
        with pytest.raises(Unauthorized):
            await enter(gate, f"wrong{number}")
    assert len(caplog.records) == 20
    gate.audit.flush()
    told = [vars(record) for record in caplog.records if vars(record)["event"] == "suppressed"]
    assert sorted((line["of"], line["count"]) for line in told) == [("denied", 490), ("refused", 490)]
    assert gate.audit.counts["denied", "test", "publish"] == 500
    assert gate.audit.suppressed == 980
