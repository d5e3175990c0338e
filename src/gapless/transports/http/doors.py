"""The HTTP doors, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gapless.auth import Gate
from gapless.brokers.offer import BrokerDesk
from gapless.eventlog import EventLog
from gapless.hub import Hub
from gapless.ingress import Ingress
from gapless.presence import Presence
from gapless.topicmap import TopicMap
from gapless.transports.broadcast import Broadcast
from gapless.transports.http.admin import AdminDoor
from gapless.transports.http.connect import ConnectDoor, Offers
from gapless.transports.http.endpoint import Endpoint, Handler, encode
from gapless.transports.http.health import Health
from gapless.transports.http.metrics import MetricsDoor, Sample
from gapless.transports.http.openapi import openapi_document
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.pages import Pages
from gapless.transports.http.polling import PollDoor
from gapless.transports.http.presence import PresenceDoor
from gapless.transports.http.request import Request
from gapless.transports.http.rest import RestDoor
from gapless.transports.http.sse import SseDoor


class HttpDoors:
    """REST, long poll, SSE, connect, health, metrics and the pages.

    Args:
        status: the state of the gateway's other components, each `ok` or what is wrong; for `/readyz`.
        offers: the other transports there are, asked at each `/api/connect`.
        samples: what the gateway's other parts count, asked at each `/metrics`.
        broker: hands out credentials for an external broker at `/api/connect`.
        broadcast: writes an event to many streams; None writes to one after the other.

    Attributes:
        paths: who serves which.
    """

    def __init__(
        self,
        *,
        ingress: Ingress,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        topic_map: TopicMap,
        presence: Presence | None = None,
        options: HttpOptions | None = None,
        status: Callable[[], Mapping[str, str]] = dict,
        offers: Callable[[], Offers] = Offers,
        samples: Callable[[], Iterable[Sample]] = tuple,
        broker: BrokerDesk | None = None,
        broadcast: Broadcast | None = None,
    ) -> None:
        self.options = options = options or HttpOptions()
        self._hub = hub
        self._answers: Counter[int] = Counter()
        self.rest = RestDoor(ingress=ingress, gate=gate, options=options)
        presence = presence or Presence(gate=gate)
        common: dict[str, Any] = {"gate": gate, "topic_map": topic_map, "options": options, "presence": presence}
        self.polling = PollDoor(**common, hub=hub, log=log, clock=ingress.clock)
        self.sse = SseDoor(**common, hub=hub, log=log, clock=ingress.clock, broadcast=broadcast)
        self._presence = PresenceDoor(**common)
        self.fanouts = (self.polling, self.sse)
        self.health = Health(gate=gate, log=log, status=status)
        self._connect = ConnectDoor(
            hub=hub, gate=gate, topic_map=topic_map, options=options, offers=offers, broker=broker
        )
        self._metrics = MetricsDoor(
            gate=gate,
            ingress=ingress,
            hub=hub,
            log=log,
            sse=self.sse,
            polling=self.polling,
            answers=self._answers,
            samples=samples,
        )
        self._admin = AdminDoor(gate)
        self._pages = Pages()
        self._openapi = encode(openapi_document(ingress.limits, options))
        self.paths = self._make_paths()

    async def start(self) -> None:
        """Register the fan-outs on the hub, which must have been started."""
        for fanout in self.fanouts:
            self._hub.add(fanout)
        self.sse.start()
        self.health.started = True

    async def stop(self) -> None:
        """Answer every poll and end every stream. Call it before the HTTP server stops."""
        self.health.started = False
        self.polling.stop()
        await self.sse.stop()
        for fanout in self.fanouts:
            self._hub.remove(fanout)

    def _make_paths(self) -> dict[str, Endpoint]:
        paths = {
            "/api/events": self._endpoint({"GET": self.polling.poll, "POST": self.rest.publish}, head=False),
            "/api/stream": self._endpoint({"GET": self.sse.stream}, head=False),
            "/api/connect": self._endpoint({"GET": self._connect.connect}),
            "/api/presence": self._endpoint({"GET": self._presence.presence}),
            "/healthz": self._endpoint({"GET": self.health.healthz}),
            "/readyz": self._endpoint({"GET": self.health.readyz}),
            "/metrics": self._endpoint({"GET": self._metrics.metrics}),
            "/api/admin/revocations": self._endpoint({"GET": self._admin.list, "POST": self._admin.revoke}),
            "/api/admin/recheck": self._endpoint({"POST": self._admin.recheck}),
            "/openapi.json": self._endpoint({"GET": self._send_openapi}),
            "/docs": self._page("api.html"),
            **{f"/assets/{name}": self._page(name) for name in self._pages.names},
        }
        if self.options.pages:
            paths["/"] = self._page("index.html")
        return paths

    def _endpoint(self, handlers: Mapping[str, Handler], *, head: bool = True) -> Endpoint:
        return Endpoint(self._answers, handlers, head=head)

    def _page(self, name: str) -> Endpoint:
        async def send(request: Request) -> None:
            await self._pages.send(request, name)

        return self._endpoint({"GET": send})

    async def _send_openapi(self, request: Request) -> None:
        await request.answer(200, self._openapi)
