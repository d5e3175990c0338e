"""`$room/…` by stock clients of every kind: their own checks of filters let it pass, and it brings the room."""

from __future__ import annotations

import json

import pytest

from gapless.mqtt import room_filter
from tests.stock_mqtt.stock import Kind, Message, take

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("odd", ["", "+#%"], ids=["plain", "escaped"])
async def test_a_session_hears_a_room_that_the_payload_decides(kind: Kind, odd: str) -> None:
    lead = f"s{kind.number}{odd}"
    filter_ = room_filter(f"lead:{lead}")

    async def happen(*numbers: int) -> None:
        for number in numbers:
            for activity, which in ((f"{kind.number}-{number}", lead), (f"{kind.number}-{number}x", "another")):
                data = {"leadId": which, "n": number}
                await kind.gateway.publish(topic=f"crm/activities/{activity}/created", data=data)

    def number_of(message: Message) -> int:
        assert message.topic.startswith(f"crm/activities/{kind.number}-")
        number: int = json.loads(message.payload)["data"]["n"]
        return number

    phone = await kind.connect("phone", stays=True)
    await phone.subscribe(filter_, 1)
    await happen(1, 2)
    assert [number_of(one) for one in await take(phone, 2)] == [1, 2]
    await kind.acknowledged("phone")
    await phone.end()
    await kind.left("phone")
    await happen(3, 4)
    phone = await kind.connect("phone", stays=True)
    if kind.name == "mosquitto":  # it has to name a subscription to connect at all
        await phone.subscribe(filter_, 1)
    await happen(5)
    assert [number_of(one) for one in await take(phone, 3)] == [3, 4, 5]
