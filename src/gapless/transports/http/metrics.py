"""`/metrics`, for Prometheus: read from the parts' own counters when asked, at no cost per event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gapless.auth import Gate
from gapless.eventlog import EventLog
from gapless.hub import Hub
from gapless.ingress import Ingress
from gapless.transports.http.polling import PollDoor
from gapless.transports.http.request import Request
from gapless.transports.http.sse import SseDoor


class Sample(msgspec.Struct, frozen=True):
    """One figure of a part of the gateway. All samples of a name have the same kind and label names.

    Attributes:
        name: such as `gapless_connections`; counters without `_total`.
        kind: `counter` only ever rises.
        labels: few, and of few values: never an event, a topic or a client.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    value: float
    labels: dict[str, str] = {}


def families(samples: Iterable[Sample]) -> list[CounterMetricFamily | GaugeMetricFamily]:
    """Samples of the same name as one family, in the order of their first."""
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for sample in samples:
        family = found.get(sample.name)
        if family is None:
            make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
            family = found[sample.name] = make(sample.name, sample.help, labels=list(sample.labels))
        family.add_metric(list(sample.labels.values()), sample.value)
    return list(found.values())


class MetricsDoor:
    """Answers `/metrics`.

    Args:
        answers: HTTP answers by status.
        samples: what the other parts of the gateway count.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        ingress: Ingress,
        hub: Hub,
        log: EventLog,
        sse: SseDoor,
        polling: PollDoor,
        answers: Counter[int],
        samples: Callable[[], Iterable[Sample]],
    ) -> None:
        self._gate = gate
        self._ingress = ingress
        self._hub = hub
        self._log = log
        self._sse = sse
        self._polling = polling
        self._answers = answers
        self._samples = samples
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(self))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def metrics(self, request: Request) -> None:
        """Handle `GET /metrics`, in the text format or in OpenMetrics, as asked."""
        await request.require(self._gate, "metrics")
        encoder, content_type = choose_encoder(request.header(b"accept") or "")
        await request.answer(200, encoder(self._registry), content_type=content_type.encode())

    def samples(self) -> Iterable[Sample]:
        """All figures, as they are now."""
        ingress, sse, polling = self._ingress, self._sse, self._polling
        accepted = "Events accepted, by whether they are logged."
        yield Sample("gapless_events_accepted", "counter", accepted, ingress.accepted_durable, {"durable": "true"})
        yield Sample("gapless_events_accepted", "counter", accepted, ingress.accepted_ephemeral, {"durable": "false"})
        yield Sample("gapless_events_duplicate", "counter", "Publishes of an event that was there.", ingress.duplicates)
        yield Sample("gapless_log_head_offset", "gauge", "Offset of the newest durable event.", self._log.head)
        yield Sample("gapless_log_oldest_offset", "gauge", "Offset of the oldest event kept.", self._log.oldest)
        yield Sample("gapless_hub_head_offset", "gauge", "Offset of the newest event handed out.", self._hub.head)
        yield Sample("gapless_retained_bytes", "gauge", "Retained messages kept, in bytes.", self._hub.retained.size)
        connections = "Clients connected now, by transport."
        yield Sample("gapless_connections", "gauge", connections, sse.open_streams, {"transport": "sse"})
        yield Sample("gapless_connections", "gauge", connections, polling.waiting, {"transport": "poll"})
        delivered = "Events handed to clients, by transport and whether live or from history."
        for transport, source, value in (
            ("sse", "live", sse.delivered),
            ("sse", "history", sse.caught_up),
            ("poll", "any", polling.delivered),
        ):
            labels = {"transport": transport, "source": source}
            yield Sample("gapless_events_delivered", "counter", delivered, value, labels)
        dropped = "Ephemeral events that full connections did not get."
        yield Sample("gapless_ephemeral_dropped", "counter", dropped, sse.dropped, {"transport": "sse"})
        fell_behind = "Times that a full connection was left to the log."
        yield Sample("gapless_fell_behind", "counter", fell_behind, sse.fell_behind, {"transport": "sse"})
        behind = "Connected readers being fed from the log now."
        yield Sample("gapless_readers_behind", "gauge", behind, sse.behind, {"transport": "sse"})
        held = "Bytes of events that wait for full connections."
        yield Sample("gapless_held_bytes", "gauge", held, sse.held, {"transport": "sse"})
        for status, count in sorted(self._answers.items()):
            yield Sample("gapless_http_answers", "counter", "HTTP answers by status.", count, {"status": str(status)})
        yield from self._samples()


class _Collector(Collector):
    def __init__(self, door: MetricsDoor) -> None:
        self._door = door

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        return families(self._door.samples())
