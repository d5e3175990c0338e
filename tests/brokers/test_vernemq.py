"""VerneMQ's webhooks, as its documentation says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.brokers.desk import Desk, token

SALES = token("7", "SALES", rooms=["lead:1"])
REGISTER = {"peer_addr": "127.0.0.1", "peer_port": 8888, "username": "7", "password": SALES, "mountpoint": ""}


async def hook(desk: Desk, name: str, **body: Any) -> tuple[bytes, str]:
    asked = {"client_id": "7~phone", "mountpoint": "", "username": "7", **body}
    headers = {"vernemq-hook": name}
    answer = await desk.ask("/vernemq", json.dumps(asked).encode(), "application/json", **headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return answer.content, answer.headers["cache-control"]


@pytest.mark.parametrize("form", ["", "_m5"])
async def test_registering(desk: Desk, form: str) -> None:
    extra = {"clean_session": False} if not form else {"clean_start": True, "properties": {}}
    assert await hook(desk, f"auth_on_register{form}", **REGISTER, **extra) == (b'{"result":"ok"}', "no-store")
    refused = await hook(desk, f"auth_on_register{form}", **{**REGISTER, "password": None}, **extra)
    assert refused == (b'{"result":{"error":"there is no token"}}', "no-store")


@pytest.mark.parametrize("form", ["", "_m5"])
async def test_publishing(desk: Desk, form: str) -> None:
    await hook(desk, f"auth_on_register{form}", **REGISTER)
    payload = {"qos": 1, "payload": "aGVsbG8=", "retain": False}
    allowed = await hook(desk, f"auth_on_publish{form}", topic="crm/users/7/presence", **payload)
    assert allowed == (b'{"result":"ok"}', "max-age=5")
    body, cache = await hook(desk, f"auth_on_publish{form}", topic="crm/leads/1/updated", **payload)
    assert json.loads(body)["result"].keys() == {"error"}
    assert cache == "no-store"


async def test_one_topic_of_a_subscription_is_refused_with_qos_128(desk: Desk) -> None:
    await hook(desk, "auth_on_register", **REGISTER)
    topics = [{"topic": "crm/leads/1/updated", "qos": 1}, {"topic": "crm/leads/2/updated", "qos": 1}]
    refused = b'[{"topic":"crm/leads/1/updated","qos":1},{"topic":"crm/leads/2/updated","qos":128}]'
    body, cache = await hook(desk, "auth_on_subscribe", topics=topics)
    assert (body, cache) == (b'{"result":"ok","topics":%b}' % refused, "no-store")
    body, _ = await hook(desk, "auth_on_subscribe_m5", topics=topics, properties={"p_subscription_id": [1]})
    assert body == b'{"result":"ok","modifiers":{"topics":%b}}' % refused
    assert await hook(desk, "auth_on_subscribe", topics=topics[:1]) == (b'{"result":"ok"}', "max-age=5")


@pytest.mark.parametrize("topics", [None, [], ["crm/leads/1/updated"], [{"topic": "a", "qos": "1"}], [{"qos": 1}]])
async def test_malformed_topics_are_denied(desk: Desk, topics: object) -> None:
    await hook(desk, "auth_on_register", **REGISTER)
    body, _ = await hook(desk, "auth_on_subscribe", topics=topics)
    assert json.loads(body)["result"].keys() == {"error"}
    assert desk.door.answers["vernemq", "auth_on_subscribe", "malformed"] == 1


async def test_who_did_not_register_is_denied(desk: Desk) -> None:
    body, _ = await hook(desk, "auth_on_subscribe", topics=[{"topic": "crm/notifications/+", "qos": 0}])
    assert json.loads(body)["result"].keys() == {"error"}
