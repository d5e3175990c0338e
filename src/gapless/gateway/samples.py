"""What the parts of a gateway count, as figures of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from gapless.auth import PolicyGate
from gapless.brokers import BrokerAccess
from gapless.limits import Limiter
from gapless.link import BrokerLink
from gapless.presence import Announcer, Presence
from gapless.transports.http import Sample
from gapless.transports.mqtt import MqttEdge
from gapless.transports.tls import ServerTls


def socketio_samples(counts: Mapping[str, int]) -> Iterator[Sample]:
    """The figures of the Socket.IO door."""
    labels = {"transport": "socketio"}
    yield Sample("gapless_connections", "gauge", "Clients connected now.", counts["connections"], labels)
    yield Sample(
        "gapless_readers_behind", "gauge", "Connected readers being fed from the log now.", counts["behind"], labels
    )
    for outcome in ("recovered", "not_recovered"):
        yield Sample(
            "gapless_socketio_returns",
            "counter",
            "Socket.IO clients that came back with a pid.",
            counts[outcome],
            {"outcome": outcome},
        )
    yield Sample(
        "gapless_connections_refused", "counter", "Connections refused by the gate.", counts["refused"], labels
    )
    for kind in ("fell_behind", "incomplete", "too_complex"):
        yield Sample(
            "gapless_socketio_incidents",
            "counter",
            "What the door counts; see its Stats.",
            counts[kind],
            {"kind": kind},
        )


def mqtt_samples(edge: MqttEdge) -> Iterator[Sample]:
    """The figures of the MQTT edge."""
    labels = {"transport": "mqtt"}
    stats = edge.stats
    yield Sample("gapless_connections", "gauge", "Clients connected now.", stats.connections, labels)
    yield Sample("gapless_connections_refused", "counter", "Connections refused by the gate.", stats.refused, labels)
    fell_behind = "Times that a full connection was left to the log."
    yield Sample("gapless_fell_behind", "counter", fell_behind, stats.slow, labels)
    behind = "Connected readers being fed from the log now."
    yield Sample("gapless_readers_behind", "gauge", behind, edge.behind, labels)
    held = "Bytes of events that wait for full connections."
    yield Sample("gapless_held_bytes", "gauge", held, edge.held, labels)
    dropped = "Ephemeral events that full connections did not get."
    yield Sample("gapless_ephemeral_dropped", "counter", dropped, stats.dropped_ephemeral, labels)
    yield Sample(
        "gapless_mqtt_sessions_away", "gauge", "Persistent sessions whose client is not connected.", stats.sessions_away
    )
    rooms = "Rooms that connected clients hear by a filter of their own, $room/…"
    yield Sample("gapless_mqtt_rooms", "gauge", rooms, edge.fanout.rooms)
    for direction, counts in (("received", stats.received), ("sent", stats.sent)):
        for qos, count in enumerate(counts):
            yield Sample(
                f"gapless_mqtt_publishes_{direction}",
                "counter",
                f"PUBLISH packets {direction}.",
                count,
                {"qos": str(qos)},
            )
    for name, value in (
        ("resumed", stats.resumed),
        ("taken_over", stats.taken_over),
        ("protocol_error", stats.protocol_errors),
        ("timeout", stats.timeouts),
        ("incomplete", stats.incomplete),
        ("publish_refused", stats.refused_publishes),
        ("publish_resent", stats.resent_publishes),
        ("too_large", stats.too_large),
        ("will", stats.wills),
        ("will_denied", stats.denied_wills),
        ("store_failure", stats.store_failures),
        ("failure", stats.failures),
    ):
        yield Sample(
            "gapless_mqtt_incidents", "counter", "What the MQTT edge counts; see EdgeStats.", value, {"kind": name}
        )


def presence_samples(presence: Presence, announcer: Announcer | None) -> Iterator[Sample]:
    """The figures of presence."""
    yield Sample("gapless_present_users", "gauge", "Users who are connected by any door.", presence.users)
    yield Sample("gapless_presence_watchers", "gauge", "Connections that are told who is there.", presence.watchers)
    if announcer is not None:
        told = "Events that say that a user came online or went offline."
        yield Sample("gapless_presence_published", "counter", told, announcer.published)
        unfit = "Times that a user id could not stand in a topic, and nothing was published."
        yield Sample("gapless_presence_unfit", "counter", unfit, announcer.unfit)


def gate_samples(gate: PolicyGate) -> Iterator[Sample]:
    """The figures of the gate."""
    for (event, door, kind), count in sorted(gate.audit.counts.items()):
        if event == "refused":
            labels = {"door": door, "reason": kind}
            yield Sample("gapless_access_refused", "counter", "Clients not let in, by door and reason.", count, labels)
        else:
            labels = {"door": door, "kind": kind}
            yield Sample("gapless_access_denied", "counter", "What clients were denied, by door.", count, labels)
    held = "Connections and waiting requests tied to the access they came with."
    yield Sample("gapless_access_held", "gauge", held, len(gate.leases))
    yield Sample("gapless_revocations", "gauge", "Revocations kept.", len(gate.revocations))
    suppressed = "Lines of the audit log not written because they repeated others."
    yield Sample("gapless_audit_suppressed", "counter", suppressed, gate.audit.suppressed)
    asked = "Questions to the application, by outcome."
    for outcome in ("allowed", "denied", "timeout", "failed", "overloaded"):
        yield Sample("gapless_ask", "counter", asked, gate.application.counts[outcome], {"outcome": outcome})
    if (key_set := gate.authenticator.key_set) is not None:
        for outcome, count in key_set.counts.items():
            yield Sample("gapless_jwks_fetches", "counter", "Fetches of the key set.", count, {"outcome": outcome})


def link_samples(link: BrokerLink) -> Iterator[Sample]:
    """The figures of the link to the external broker."""
    connected = float(link.state.status == "connected")
    yield Sample("gapless_link_connected", "gauge", "1 while the external broker is connected.", connected)
    yield Sample("gapless_link_behind", "gauge", "Events that the external broker has not taken yet.", link.pump.behind)
    yield Sample(
        "gapless_link_held_events",
        "gauge",
        "Events past the log's retention that are kept until the external broker has taken them.",
        link.held,
    )
    for name, value in msgspec.structs.asdict(link.stats).items():
        yield Sample("gapless_link_events", "counter", "What the link counts; see LinkStats.", value, {"kind": name})


def tls_samples(tls: ServerTls, failed: Mapping[str, int]) -> Iterator[Sample]:
    """The figures of the certificates, and the handshakes that failed or took too long by protocol."""
    for protocol, count in failed.items():
        what = "TLS handshakes that failed or took too long."
        yield Sample("gapless_tls_handshakes_failed", "counter", what, count, {"protocol": protocol})
    yield Sample("gapless_tls_certificate_expires", "gauge", "When it ends, in Unix seconds.", tls.expires)
    yield Sample("gapless_tls_reloads", "counter", "Times that changed TLS files were taken.", tls.reloads)
    bad = "1 while the TLS files as they are now cannot be used, and older ones are."
    yield Sample("gapless_tls_files_unusable", "gauge", bad, int(tls.problem is not None))


def broker_samples(brokers: BrokerAccess) -> Iterator[Sample]:
    """What brokers asked, and what they were answered."""
    known = "Clients of brokers whose questions are answered by their token."
    yield Sample("gapless_broker_clients", "gauge", known, len(brokers.logins))
    if brokers.provision is not None:
        accounts, control = brokers.provision.accounts, brokers.provision.control
        yield Sample("gapless_broker_accounts", "gauge", "Accounts of ours at Mosquitto.", len(accounts))
        told = "Commands sent to Mosquitto's dynamic security."
        yield Sample("gapless_broker_commands", "counter", told, control.commands)
        yield Sample("gapless_broker_in_line", "gauge", "Whether Mosquitto is told everything.", int(control.ready))
    if brokers.door is not None:
        for (broker, call, outcome), count in sorted(brokers.door.answers.items()):
            labels = {"broker": broker, "call": call, "outcome": outcome}
            yield Sample("gapless_broker_answers", "counter", "Questions of brokers, by answer.", count, labels)


def limit_samples(limiter: Limiter, refused: Mapping[str, int]) -> Iterator[Sample]:
    """What was refused or held back."""
    limited = "Times that a client was refused or held back, by what was too much and whose share it was."
    for (scope, kind), count in sorted(limiter.refusals.items()):
        yield Sample("gapless_limited", "counter", limited, count, {"of": scope, "kind": kind})
    yield Sample("gapless_limits_remembered", "gauge", "Users and addresses whose shares are remembered.", len(limiter))
    front = "Requests and WebSocket handshakes refused before any door, by error code."
    for code, count in sorted(refused.items()):
        yield Sample("gapless_front_refusals", "counter", front, count, {"code": code})
