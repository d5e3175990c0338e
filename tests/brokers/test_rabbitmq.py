"""RabbitMQ's requests, as 3.10.8 with its MQTT plugin was seen to send them."""

from __future__ import annotations

import pytest

from tests.brokers.desk import Desk, token

FORM = "application/x-www-form-urlencoded"
MANAGER = token("2", "MANAGER")
SALES = token("7", "SALES", rooms=["lead:1"])


async def say(desk: Desk, path: str, body: str) -> str:
    answer = await desk.ask(f"/rabbitmq/{path}", body.encode(), FORM)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain"
    return answer.text


async def connect(desk: Desk, user: str, password: str, client_id: str) -> None:
    login = f"username={user}&password={password}&vhost=%2F&client_id={client_id}"
    assert await say(desk, "user", login) == "allow"
    assert await say(desk, "vhost", f"username={user}&vhost=%2F&ip=127.0.0.1&tags=&client_id={client_id}") == "allow"


def topic(user: str, permission: str, key: str, client_id: str) -> str:
    context = f"variable_map.client_id={client_id}&variable_map.username={user}&variable_map.vhost=%2F"
    head = f"username={user}&vhost=%2F&resource=topic&name=amq.topic&permission={permission}&tags="
    return f"{head}&routing_key={key}&{context}"


def resource(user: str, kind: str, name: str, permission: str, client_id: str) -> str:
    head = f"username={user}&vhost=%2F&resource={kind}&name={name}&permission={permission}"
    return f"{head}&tags=&client_id={client_id}"


async def test_a_subscription_byte_by_byte(desk: Desk) -> None:
    await connect(desk, "7", SALES, "7~phone")
    for permission in ("configure", "read", "write"):
        asked = resource("7", "queue", "mqtt-subscription-7~phoneqos1", permission, "7~phone")
        assert await say(desk, "resource", asked) == "allow"
    assert await say(desk, "resource", resource("7", "exchange", "amq.topic", "read", "7~phone")) == "allow"
    assert await say(desk, "topic", topic("7", "read", "crm.leads.1.created", "7~phone")) == "allow"
    assert await say(desk, "topic", topic("7", "read", "crm.leads.2.created", "7~phone")) == "deny"
    assert await say(desk, "topic", topic("7", "read", "crm.notifications.%2A", "7~phone")) == "allow"
    assert await say(desk, "topic", topic("7", "read", "crm.notifications.%23", "7~phone")) == "deny"
    assert await say(desk, "topic", topic("7", "read", "%23", "7~phone")) == "deny"


async def test_publishing(desk: Desk) -> None:
    await connect(desk, "7", SALES, "7~x")
    assert await say(desk, "resource", resource("7", "exchange", "amq.topic", "write", "7~x")) == "allow"
    assert await say(desk, "topic", topic("7", "write", "crm.users.7.presence", "7~x")) == "allow"
    assert await say(desk, "topic", topic("7", "write", "crm.users.8.presence", "7~x")) == "deny"
    assert await say(desk, "topic", topic("7", "write", "crm.users.%2A.presence", "7~x")) == "deny"
    assert await say(desk, "topic", topic("7", "configure", "crm.users.7.presence", "7~x")) == "deny"


@pytest.mark.parametrize(
    "asked",
    [
        ("queue", "mqtt-subscription-8~phoneqos1", "read"),
        ("queue", "mqtt-subscription-gapless-k3x9qos1", "read"),
        ("queue", "orders", "read"),
        ("exchange", "amq.topic", "configure"),
        ("exchange", "amq.fanout", "write"),
        ("exchange", "", "write"),
    ],
)
async def test_what_mqtt_has_no_use_for_is_denied(desk: Desk, asked: tuple[str, str, str]) -> None:
    await connect(desk, "7", SALES, "7~phone")
    assert await say(desk, "resource", resource("7", *asked, "7~phone")) == "deny"


async def test_a_queue_of_another_own_client_id_and_amq_plain_clients(desk: Desk) -> None:
    await connect(desk, "7", SALES, "7~phone")
    other = resource("7", "queue", "mqtt-subscription-7~tabletqos0", "write", "7~phone")
    assert await say(desk, "resource", other) == "allow"


async def test_where_the_client_is_not_named_all_of_the_users_must_be_allowed(desk: Desk) -> None:
    asked = "username=7&vhost=%2F&resource=topic&name=amq.topic&permission=read&tags=&routing_key=crm.leads.1.created"
    await connect(desk, "7", SALES, "7~phone")
    assert await say(desk, "topic", asked) == "allow"
    await connect(desk, "7", token("7", "SALES"), "7~kiosk")
    assert await say(desk, "topic", asked) == "deny"


async def test_the_links_own_account_may_everything_but_not_under_another_password(desk: Desk) -> None:
    wrong = "username=link-user&password=guess&vhost=%2F&client_id=gapless-k3x9"
    assert await say(desk, "user", wrong) == "deny"
    await connect(desk, "link-user", "link-password", "gapless-k3x9")
    queue = resource("link-user", "queue", "mqtt-subscription-gapless-k3x9qos1", "configure", "gapless-k3x9")
    assert await say(desk, "resource", queue) == "allow"
    assert await say(desk, "topic", topic("link-user", "read", "crm.leads.%2A.created", "gapless-k3x9")) == "allow"
    assert await say(desk, "topic", topic("link-user", "write", "gapless.heartbeat", "gapless-k3x9")) == "allow"


async def test_a_user_that_is_called_like_the_links_account_is_not_taken_for_it(desk: Desk) -> None:
    login = f"username=link-user&password={token('link-user', 'ADMIN')}&vhost=%2F&client_id=link-user~1"
    assert await say(desk, "user", login) == "deny"
