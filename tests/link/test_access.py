"""Under whose rights the messages of a broker come in."""

from __future__ import annotations

import json
from typing import Any

from gapless.auth import AuthOptions, Identity, PolicyGate, review
from gapless.mqtt import Puback, Publish, ReasonCode
from gapless.topicmap import Row, TopicMap
from tests.gates import TableGate
from tests.link.scripted import scripted
from tests.link.support import options, side

ALLOWED, OTHER = "crm/leads/1/updated", "crm/leads/2/updated"


def message(n: int, **fields: Any) -> bytes:
    return json.dumps({"id": f"e{n}", "type": "lead:updated", "data": {"n": n}, **fields}).encode()


async def test_a_message_that_may_not_come_in_is_acknowledged_counted_and_no_event() -> None:
    gate = TableGate()
    gate.says[None].add(ALLOWED)
    async with scripted() as broker, side(options(broker.url), gate=gate) as gateway:
        session = broker.sessions[-1]
        for packet_id, topic in enumerate((OTHER, ALLOWED, "$SYS/x"), 1):
            session.send(Publish(topic, message(packet_id), qos=1, packet_id=packet_id))
            assert (await session.get(Puback)).reason_code is ReasonCode.SUCCESS  # else it comes again and again
        assert [record.event.topic for record in gateway.heard.records] == [ALLOWED]
        assert gateway.link.stats.rejected == 2


async def test_who_may_publish_at_the_broker_is_believed_or_not() -> None:
    for believe, users in ((True, ["7", None]), (False, [None])):
        async with scripted() as broker, side(options(broker.url, believe_users=believe)) as gateway:
            session = broker.sessions[-1]
            for packet_id, fields in enumerate(({"userId": "7"}, {}), 1):
                session.send(Publish(ALLOWED, message(packet_id, **fields), qos=1, packet_id=packet_id))
                await session.get(Puback)
            assert [record.event.user_id for record in gateway.heard.records] == users


def test_the_map_says_what_a_link_may_bring_in() -> None:
    rows = [Row("a/{x}", "a", publish=("role:LINK",)), Row("b/{x}", "b", publish=("role:MANAGER",))]
    gate = PolicyGate(TopicMap(rows), AuthOptions(secret="of-thirty-two-bytes-and-a-few-more"))

    def brings(roles: tuple[str, ...]) -> list[str]:
        identity = Identity(roles=frozenset(roles), service=True, token_id="link broker")
        topics = ["a/1", "b/1", "c/1"]
        denied = review(gate.check_publish, identity, topics).denied
        return [topic for topic in topics if topic not in denied]

    assert (brings(("LINK",)), brings(())) == (["a/1"], ["a/1", "b/1", "c/1"])
