"""An id is its author's own: nobody keeps another's event out by using its id, or learns that it exists."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import socketio

from gapless.auth import AuthOptions
from gapless.auth.api_keys import create_key
from gapless.envelope import read_payload
from gapless.event import Origin
from gapless.gateway import Gateway
from gapless.ingress import Publication
from gapless.mqtt import ProtocolVersion, Puback
from tests.matrix.people import SECRET, token
from tests.mqtt_edge.support import Client, close_clients
from tests.security.site import http, port, running

TOPIC = "crm/leads/1/updated"
ID = "lead-1-updated-by-7"
HER, HIM = token(user="7", roles=["MANAGER"]), token(user="8", roles=["MANAGER"])


class Site:
    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, key: str) -> None:
        self.gateway = gateway
        self.client = client
        self.key = key

    async def rest(self, shown: str, **event: Any) -> dict[str, Any]:
        answer = await self.client.post(
            "/api/events", json={"id": ID, "topic": TOPIC, **event}, headers={"authorization": f"Bearer {shown}"}
        )
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def socketio(self, shown: str, **event: Any) -> dict[str, Any]:
        client = socketio.AsyncClient(reconnection=False)
        await client.connect(self.gateway.http_url, auth={"token": shown}, transports=["websocket"])
        answer: dict[str, Any] = await client.call("publish", {"id": ID, "topic": TOPIC, **event})
        await client.disconnect()
        assert answer["ok"], answer
        return answer

    async def mqtt(self, shown: str, **event: Any) -> None:
        client, _ = await Client.connect(
            port(self.gateway.mqtt_url), "phone", ProtocolVersion.V5, username="u", password=shown.encode()
        )
        answer = await client.publish(TOPIC, json.dumps({"id": ID, "type": "lead:updated", **event}).encode())
        assert isinstance(answer, Puback)
        assert not answer.reason_code.is_failure, answer
        await client.disconnect()

    async def from_the_broker(self, payload: bytes) -> bool:
        """As the link takes it in; whether it was there."""
        envelope = read_payload(payload)
        publication = Publication(envelope=envelope, origin=Origin("link"), topic=TOPIC, user_id=envelope.user_id)
        return (await self.gateway.ingress.submit(publication)).duplicate

    async def stored(self) -> list[tuple[str, str | None, Any]]:
        """Of each event in the log its id, its user and its data, as readers see them."""
        answer = await self.client.get(
            "/api/events?rooms=lead:1&after=start", headers={"authorization": f"Bearer {self.key}"}
        )
        return [(event["id"], event["userId"], event["data"]) for event in answer.json()["events"]]


@pytest.fixture(params=["memory", "disk"])
async def site(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Site]:
    keys = tmp_path / "keys.json"
    key = create_key(keys, "backend")
    data = None if request.param == "memory" else tmp_path / "data"
    options = AuthOptions(secret=SECRET, api_keys_file=keys)
    async with running(auth=options, data=data) as gateway, http(gateway) as client:
        yield Site(gateway, client, key)
    await close_clients()


async def test_nobody_takes_an_id_away(site: Site) -> None:
    await site.rest(HIM, data="squatted")
    hers = await site.rest(HER, data="hers")
    backends = await site.rest(site.key, data="the back end's")
    assert (hers["id"], hers["duplicate"], backends["duplicate"]) == (ID, False, False)
    assert await site.stored() == [(ID, "8", "squatted"), (ID, "7", "hers"), (ID, None, "the back end's")]


async def test_an_answer_does_not_tell_whether_an_id_exists(site: Site) -> None:
    await site.rest(HER, data="hers")
    answers = [await site.rest(HIM, data=1, id=event_id) for event_id in (ID, "of-nothing")]
    for answer in answers:
        del answer["id"], answer["position"]
    assert answers[0] == answers[1]


async def test_one_event_of_a_user_by_every_door_counts_once(site: Site) -> None:
    await site.rest(HIM, data="squatted")
    assert not (await site.rest(HER, data={"n": 1}))["duplicate"]
    fresh = token(user="7", roles=["MANAGER"], jti="another-token")
    assert (await site.socketio(fresh, data={"n": 1}))["duplicate"]
    await site.mqtt(HER, data={"n": 1})
    assert (await site.rest(site.key, data={"n": 1}, userId="7"))["duplicate"]  # her back end speaks for her
    assert await site.from_the_broker(
        json.dumps({"id": ID, "type": "lead:updated", "data": {"n": 1}, "userId": "7"}).encode()
    )
    assert [user for _, user, _ in await site.stored()] == ["8", "7"]


async def test_what_comes_back_from_a_broker_is_known_also_without_its_user(site: Site) -> None:
    """MQTT 3.1.1 has no properties: the link's own message comes back as the very bytes that she published."""
    await site.rest(HIM, data="squatted")
    await site.mqtt(HER, data={"n": 1})
    assert await site.from_the_broker(json.dumps({"id": ID, "type": "lead:updated", "data": {"n": 1}}).encode())
    assert len(await site.stored()) == 2


async def test_ids_of_the_gateway_cannot_be_taken_either(site: Site) -> None:
    """They need not be secret: whoever foresees one has an id of its own."""
    ids = iter(["foreseen"])
    site.gateway.ingress.new_id = lambda: next(ids)  # type: ignore[assignment]
    await site.rest(HIM, id="foreseen", data="squatted")
    answer = await site.client.post(
        "/api/events", json={"topic": TOPIC, "data": "hers"}, headers={"authorization": f"Bearer {HER}"}
    )
    assert (answer.json()["id"], answer.json()["duplicate"]) == ("foreseen", False)


@pytest.mark.parametrize("event_id", ["", "\x1f", f"{ID}\x1f1", "a\nb"])
async def test_ids_with_control_characters_are_refused(site: Site, event_id: str) -> None:
    answer = await site.client.post(
        "/api/events", json={"id": event_id, "topic": TOPIC}, headers={"authorization": f"Bearer {HER}"}
    )
    assert answer.status_code == 400, answer.text
