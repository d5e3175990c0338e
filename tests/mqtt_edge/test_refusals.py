"""What is refused: to whom, with which reason, and with harm to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gapless.auth import Credentials, DevelopmentGate, Identity
from gapless.envelope import MAX_NODES
from gapless.errors import ConfigError, Forbidden, LogUnavailable
from gapless.event import Event
from gapless.eventlog import Answer, MemoryLog, StateWrite
from gapless.limits import Limits
from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Pingreq,
    Pingresp,
    Properties,
    ProtocolVersion,
    Puback,
    Publish,
    Pubrec,
    ReasonCode,
    SubscriptionRequest,
    Unsuback,
    Will,
)
from gapless.topicmap import Row, TopicMap
from gapless.transports.mqtt import EdgeOptions
from tests.mqtt_edge.support import V5, V311, Client, running_edge, until

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


class StrictGate(DevelopmentGate):
    """Everybody may hear and say what is below `open/`."""

    def check_subscribe_filter(self, identity: Identity, topic_filter: str) -> None:
        if not topic_filter.startswith("open/"):
            raise Forbidden("not yours")

    def check_publish(self, identity: Identity, topic: str) -> None:
        if not topic.startswith("open/"):
            raise Forbidden("not yours")


class SlowGate(DevelopmentGate):
    """Lets nobody in before the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.let_in = asyncio.Event()

    async def authenticate(self, credentials: Credentials) -> Identity:
        await self.let_in.wait()
        return await super().authenticate(credentials)


# CONNECT


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        (b"secret", ReasonCode.SUCCESS),
        (b"wrong", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        (None, ReasonCode.NOT_AUTHORIZED),
    ],
    ids=["right", "wrong", "none"],
)
@VERSIONS
async def test_the_password_is_the_token(version: ProtocolVersion, password: bytes | None, reason: ReasonCode) -> None:
    async with running_edge(gate=DevelopmentGate("secret")) as node:
        username = None if password is None else "u"
        client, connack = await Client.connect(node.port, "c", version, username=username, password=password)
        assert connack.reason_code is reason
        if connack.reason_code.is_failure:
            await client.expect_closed()
            assert node.edge.stats.refused == 1


async def test_an_empty_client_id_is_assigned_one_MQTT_3_1_3_6() -> None:
    async with running_edge() as node:
        _, one = await Client.connect(node.port, "")
        _, two = await Client.connect(node.port, "", clean=False, expiry=10)
        assert one.properties is not None
        assert two.properties is not None
        names = {one.properties.assigned_client_identifier, two.properties.assigned_client_identifier}
        assert names == set(node.edge.connected)
        assert all(name and name.startswith("auto-") for name in names)


async def test_what_comes_before_connack_is_done_after_it() -> None:
    gate = SlowGate()
    async with running_edge(gate=gate) as node:
        client = await Client.open(node.port)
        client.send(Connect("c", V5), Pingreq(), Publish("a", b"early", qos=1, packet_id=1))
        gate.let_in.set()
        await client.expect(Connack)
        await client.expect(Pingresp)
        await client.expect(Puback)
        assert node.hub.head == 1


async def test_a_client_that_leaves_while_it_is_checked_is_noticed_then() -> None:
    gate = SlowGate()
    async with running_edge(gate=gate) as node:
        client = await Client.open(node.port)
        client.send(Connect("c", V5, will=Will("w", b"x", qos=1)))
        await until(lambda: len(node.edge.sockets) == 1)
        await client.drop()
        gate.let_in.set()
        await until(lambda: not node.edge.sockets)
        assert not node.edge.connected
        await until(lambda: node.edge.stats.wills == node.edge.stats.accepted)


async def test_no_connect_in_time() -> None:
    async with running_edge(options=EdgeOptions(connect_timeout=0.05)) as node:
        client = await Client.open(node.port)
        await client.expect_closed()
        assert node.edge.stats.timeouts == 1


async def test_silence_ends_the_connection_MQTT_3_1_2_22() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port, "c", keep_alive=1, will=Will("w", b"silent", qos=1))
        await client.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
        await until(lambda: node.edge.stats.wills == 1)


async def test_the_servers_keep_alive_MQTT_3_2_2_21() -> None:
    async with running_edge(options=EdgeOptions(keepalive_max=30)) as node:
        for asked, told in ((0, 30), (60, 30), (30, None), (10, None)):
            _, connack = await Client.connect(node.port, f"c{asked}", keep_alive=asked)
            assert connack.properties is not None
            assert connack.properties.server_keep_alive == told


async def test_too_many_clients() -> None:
    async with running_edge(options=EdgeOptions(max_clients=1)) as node:
        await Client.connect(node.port, "one")
        _, connack = await Client.connect(node.port, "two")
        assert connack.reason_code is ReasonCode.SERVER_BUSY
        _, connack = await Client.connect(node.port, "one")  # a takeover is no new one
        assert connack.reason_code is ReasonCode.SUCCESS


async def test_extended_authentication_is_refused() -> None:
    async with running_edge() as node:
        client = await Client.open(node.port)
        client.send(Connect("c", V5, properties=Properties(authentication_method="SCRAM")))
        assert (await client.expect(Connack)).reason_code is ReasonCode.BAD_AUTHENTICATION_METHOD
        client, _ = await Client.connect(node.port)
        client.send(Auth(ReasonCode.REAUTHENTICATE, Properties(authentication_method="SCRAM")))
        await client.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_a_will_to_a_forbidden_topic_is_refused_with_the_connect() -> None:
    async with running_edge(gate=StrictGate()) as node:
        _, connack = await Client.connect(node.port, will=Will("closed/x", b""))
        assert connack.reason_code is ReasonCode.NOT_AUTHORIZED


# PUBLISH


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    ("topic", "payload", "properties", "reason"),
    [
        ("closed/x", b"x", None, ReasonCode.NOT_AUTHORIZED),
        ("open/" + "x/" * 40, b"x", None, ReasonCode.TOPIC_NAME_INVALID),
        ("open/x", b"x" * 2000, None, ReasonCode.QUOTA_EXCEEDED),
        ("open/x", b"\xff", Properties(payload_format_indicator=1), ReasonCode.PAYLOAD_FORMAT_INVALID),
    ],
    ids=["forbidden", "too deep", "too large", "not UTF-8"],
)
async def test_a_refused_publish_says_why_and_the_connection_stays(
    qos: int, topic: str, payload: bytes, properties: Properties | None, reason: ReasonCode
) -> None:
    async with running_edge(gate=StrictGate(), limits=Limits(payload_bytes=1000)) as node:
        client, _ = await Client.connect(node.port)
        answer = await client.publish(topic, payload, qos=qos, properties=properties)
        assert isinstance(answer, Puback if qos == 1 else Pubrec)
        assert answer.reason_code is reason
        assert answer.properties is not None
        assert answer.properties.reason_string
        assert node.hub.head == 0
        answer = await client.publish("open/x", qos=qos)
        assert answer is not None
        assert answer.reason_code is ReasonCode.SUCCESS


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refused_publish_closes_a_3_1_1_connection(qos: int) -> None:
    async with running_edge(gate=StrictGate()) as node:
        client, _ = await Client.connect(node.port, version=V311)
        other, _ = await Client.connect(node.port, "other", version=V311)
        client.send(Publish("closed/x", qos=qos, packet_id=1))
        await client.expect_closed()
        await other.publish("open/x")
        assert node.hub.head == 1


TOO_DEEP = b'{"id":"1","type":"t","data":' + b"[" * 80 + b"]" * 80 + b"}"
TOO_MANY = b"[" + b"0," * MAX_NODES + b"0]"


@pytest.mark.parametrize("payload", [TOO_DEEP, TOO_MANY, b"[" * 5000], ids=["too deep", "too many", "far too deep"])
async def test_json_that_is_too_complex_is_refused_and_what_else_is_published_goes_on(payload: bytes) -> None:
    async with running_edge(limits=Limits(payload_bytes=4 << 20)) as node:
        client, _ = await Client.connect(node.port)
        for qos in (1, 2):
            answer = await client.publish("open/x", payload, qos=qos)
            assert answer is not None
            assert answer.reason_code is ReasonCode.PAYLOAD_FORMAT_INVALID
            assert answer.properties is not None
            assert "64 levels" in str(answer.properties.reason_string) or "500000" in str(answer.properties)
        await client.publish("open/x", payload, qos=0)  # nobody to tell: dropped
        answer = await client.publish("open/x", b"[" * 50 + b"]" * 50)
        assert answer is not None
        assert answer.reason_code is ReasonCode.SUCCESS
        assert node.edge.stats.refused_publishes == 3
        assert node.hub.head == 1
        old, _ = await Client.connect(node.port, "old", V311)
        await old.publish("open/x", payload, qos=0)
        old.send(Publish("open/x", payload, qos=1, packet_id=1))
        await old.expect_closed()


async def test_a_will_that_is_too_complex_is_refused() -> None:
    async with running_edge() as node:
        _, connack = await Client.connect(node.port, will=Will("open/x", TOO_DEEP))
        assert connack.reason_code is ReasonCode.PAYLOAD_FORMAT_INVALID


async def test_bytes_may_be_as_many_as_they_are_and_look_like_json() -> None:
    async with running_edge(limits=Limits(payload_bytes=4 << 20)) as node:
        client, _ = await Client.connect(node.port)
        for payload in (b"," * (MAX_NODES + 1), b"\x00" + b"[" * 100, b"[" * 100):
            answer = await client.publish("open/x", payload)
            assert answer is not None
            assert answer.reason_code is ReasonCode.SUCCESS


async def test_topics_outside_the_map_are_refused_where_the_map_says_so() -> None:
    map_ = TopicMap([Row("known/{x}", "known", ("org:global",))], unmapped=False)
    async with running_edge(topic_map=map_) as node:
        client, _ = await Client.connect(node.port)
        answer = await client.publish("unknown")
        assert isinstance(answer, Puback)
        assert answer.reason_code is ReasonCode.TOPIC_NAME_INVALID


async def test_a_refused_qos_0_publish_is_counted() -> None:
    async with running_edge(gate=StrictGate()) as node:
        client, _ = await Client.connect(node.port)
        await client.publish("closed/x", qos=0)
        await client.nothing_more()
        assert node.edge.stats.refused_publishes == 1
        await client.publish("open/x", b"\xff", qos=0, properties=Properties(payload_format_indicator=1))
        await client.expect_closed(ReasonCode.PAYLOAD_FORMAT_INVALID)


class FullLog(MemoryLog):
    """A log on a full disk, when told so."""

    full = False

    def append_one(self, event: Event, answer: Answer, *, state: Sequence[StateWrite] = ()) -> None:
        if self.full:
            raise LogUnavailable("no space left on device")
        super().append_one(event, answer, state=state)


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_the_log_cannot_take_is_not_acknowledged(qos: int) -> None:
    log = FullLog()
    async with running_edge(log=log) as node:
        client, _ = await Client.connect(node.port, "c5", clean=False, expiry=100)
        old, _ = await Client.connect(node.port, "c311", V311, clean=False)
        log.full = True
        answer = await client.publish("a", b"x", qos=qos, packet_id=7)
        assert answer is not None
        assert answer.reason_code is ReasonCode.QUOTA_EXCEEDED
        old.send(Publish("a", b"x", qos=qos, packet_id=7))
        await old.expect_closed()
        log.full = False
        answer = await client.publish("a", b"x", qos=qos, packet_id=7)  # the identifier was not taken
        assert answer is not None
        assert answer.reason_code is ReasonCode.SUCCESS
        old, connack = await Client.connect(node.port, "c311", V311, clean=False)
        assert connack.session_present
        await old.publish("a", b"x", qos=qos, packet_id=7, dup=True)
        assert node.hub.head == 2


async def test_acknowledgements_keep_the_order_of_the_publishes() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port)
        client.send(
            Publish("a", qos=1, packet_id=1),
            Publish("$closed", qos=1, packet_id=2),  # refused at once
            Publish("a", qos=2, packet_id=3),
            Publish("a", qos=1, packet_id=4),
        )
        answers = [await client.next() for _ in range(4)]
        assert [answer.packet_id for answer in answers if isinstance(answer, Puback | Pubrec)] == [1, 2, 3, 4]


async def test_the_receive_maximum_of_the_server_MQTT_3_3_4_7() -> None:
    async with running_edge(options=EdgeOptions(receive_maximum=2)) as node:
        client, connack = await Client.connect(node.port)
        assert connack.properties is not None
        assert connack.properties.receive_maximum == 2
        for packet_id in (1, 2):
            client.send(Publish("a", qos=2, packet_id=packet_id))
            await client.expect(Pubrec)
        client.send(Publish("a", qos=2, packet_id=2, dup=True))  # no third one
        await client.expect(Pubrec)
        client.send(Publish("a", qos=1, packet_id=3))
        await client.expect_closed(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)


async def test_a_flood_is_held_back_and_nothing_is_lost() -> None:
    async with running_edge(options=EdgeOptions(publish_window=8)) as node:
        client, _ = await Client.connect(node.port, version=V311)
        client.send(*(Publish("a", b"%d" % n, qos=1, packet_id=n) for n in range(1, 2001)))
        for n in range(1, 2001):
            assert (await client.expect(Puback)).packet_id == n
        assert node.hub.head == 2000


async def test_topic_aliases_MQTT_3_3_2_12() -> None:
    async with running_edge(options=EdgeOptions(topic_alias_maximum=2)) as node:
        subscriber, _ = await Client.connect(node.port, "sub")
        await subscriber.subscribe("#", qos=0)
        client, _ = await Client.connect(node.port)
        await client.publish("a", properties=Properties(topic_alias=1))
        await client.publish("", properties=Properties(topic_alias=1))
        await client.publish("b", properties=Properties(topic_alias=1))
        await client.publish("", properties=Properties(topic_alias=1))
        assert [(await subscriber.receive()).topic for _ in range(4)] == ["a", "a", "b", "b"]
        client.send(Publish("", qos=0, properties=Properties(topic_alias=2)))
        await client.expect_closed(ReasonCode.PROTOCOL_ERROR)
        client, _ = await Client.connect(node.port)
        client.send(Publish("a", qos=0, properties=Properties(topic_alias=3)))
        await client.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


async def test_a_packet_over_the_maximum_MQTT_3_2_2_15() -> None:
    async with running_edge(options=EdgeOptions(maximum_packet_size=2000)) as node:
        client, connack = await Client.connect(node.port)
        assert connack.properties is not None
        assert connack.properties.maximum_packet_size == 2000
        client.send(Publish("a", b"x" * 3000))
        await client.expect_closed(ReasonCode.PACKET_TOO_LARGE)


# SUBSCRIBE


@VERSIONS
async def test_each_filter_is_judged_alone(version: ProtocolVersion) -> None:
    async with running_edge(gate=StrictGate(), options=EdgeOptions(max_subscriptions=2)) as node:
        client, _ = await Client.connect(node.port, version=version)
        suback = await client.subscribe(
            SubscriptionRequest("open/a", 1),
            SubscriptionRequest("closed", 1),
            SubscriptionRequest("open/" + "/" * 40, 1),
            SubscriptionRequest("$share/g/closed", 1),
            SubscriptionRequest("open/b", 2),
            SubscriptionRequest("open/c", 1),
        )
        expected = [
            ReasonCode.GRANTED_QOS_1,
            ReasonCode.NOT_AUTHORIZED,
            ReasonCode.TOPIC_FILTER_INVALID,
            ReasonCode.NOT_AUTHORIZED,
            ReasonCode.GRANTED_QOS_2,
            ReasonCode.QUOTA_EXCEEDED,
        ]
        if version is V311:
            expected = [ReasonCode(min(code, 0x80)) for code in expected]
        assert suback.reason_codes == expected


async def test_unsuback_says_what_was_there_MQTT_3_11_3_1() -> None:
    async with running_edge() as node:
        client, _ = await Client.connect(node.port)
        await client.subscribe("a")
        answer: Unsuback = await client.unsubscribe("a", "b")
        assert answer.reason_codes == [ReasonCode.SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED]


# The edge itself


async def test_a_port_in_use_is_said_by_number() -> None:
    async with running_edge() as node:
        with pytest.raises(ConfigError, match=f"port {node.port} is in use") as caught:
            await node.edge.listen("127.0.0.1", node.port)
        assert caught.value.hint


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="receive_maximum"):
        EdgeOptions(receive_maximum=0).check()


async def test_the_server_says_goodbye() -> None:
    async with running_edge() as node:
        new, _ = await Client.connect(node.port, "new", V5)
        old, _ = await Client.connect(node.port, "old", V311)
        stopping = asyncio.create_task(node.edge.stop())
        await new.expect_closed(ReasonCode.SERVER_SHUTTING_DOWN)
        await old.expect_closed()
        await stopping
        node.hub.add(node.edge.fanout)  # the fixture stops it again
