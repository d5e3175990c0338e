"""What a gateway says of itself."""

from __future__ import annotations

import msgspec

from gapless.client.http import decode_answer, http_client
from gapless.client.model import Refused, Target


class GatewayDescription(msgspec.Struct, frozen=True):
    """What `/api/connect` says of the position now, and of the filters under which rooms are heard."""

    class RoomFilters(msgspec.Struct, frozen=True):
        """The filters of one room: the room's own, and those of topics."""

        filters: tuple[str, ...] = ()
        room_filter: str | None = None

        @property
        def heard_by(self) -> tuple[str, ...]:
            """What to subscribe to."""
            return self.filters if self.room_filter is None else (self.room_filter,)

    epoch: str
    position: str
    rooms: tuple[RoomFilters, ...]

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to, each once."""
        return tuple(dict.fromkeys(each for room in self.rooms for each in room.heard_by))


async def describe_gateway(target: Target) -> GatewayDescription:
    """Ask a gateway for its position, and how the target's rooms are heard over MQTT.

    Raises:
        ConnectionLost: it cannot be reached.
        Refused: it says no, or is no gateway.
    """
    query = {"rooms": ",".join(target.rooms)} if target.rooms else {}
    async with http_client(target.url, target.token, tls=target.tls) as client:
        answer = decode_answer(await client.get("/api/connect", params=query))
    try:
        return msgspec.convert(answer, GatewayDescription)
    except msgspec.ValidationError as error:
        raise Refused(f"{target.url}/api/connect answered in another form: {error}") from error
