"""Settings and counters of the edge."""

from __future__ import annotations

import msgspec

from gapless.errors import ConfigError


class EdgeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the edge treats its clients. Times in seconds, sizes in bytes.

    Attributes:
        keepalive_max: longest keep alive of a client; an MQTT 5 client that asks for more, or
            for none, is told this one (Server Keep Alive). 0: the client decides.
        connect_timeout: from the connection to the end of CONNECT's checks.
        receive_maximum: QoS 1 and 2 publishes of one MQTT 5 client not yet acknowledged.
        publish_window: publishes of one client not yet in the log, past which its socket is
            read no more until they are (3.1.1, and QoS 0).
        inflight_311: messages on their way to one 3.1.1 client, unacknowledged.
        inflight_max: the same for an MQTT 5 client, where its own Receive Maximum is larger.
        maximum_packet_size: of what clients send; None: the payload limit and 64 KiB more.
        topic_alias_maximum: topic aliases that one client may set.
        topic_levels: most levels of a filter.
        topic_bytes: longest filter.
        max_subscriptions: of one session.
        max_session_expiry: longest that a session outlives its connection; what 3.1.1 clients
            without clean session get.
        max_clients: connections at once.
        high_water: of the socket's buffer, past which a client counts as slow and is fed from
            the log.
        store_interval: progress of sessions at QoS 1 is stored at most this often.
    """

    keepalive_max: int = 0
    connect_timeout: float = 10.0
    receive_maximum: int = 256
    publish_window: int = 1000
    inflight_311: int = 100
    inflight_max: int = 1000
    maximum_packet_size: int | None = None
    topic_alias_maximum: int = 32
    topic_levels: int = 32
    topic_bytes: int = 1024
    max_subscriptions: int = 1000
    max_session_expiry: int = 7 * 86400
    max_clients: int = 100_000
    high_water: int = 256 * 1024
    store_interval: float = 0.05

    def check(self) -> None:
        """Refuse what MQTT cannot say or what cannot work.

        Raises:
            ConfigError: naming the option.
        """
        for name, low, high in (
            ("keepalive_max", 0, 65535),
            ("receive_maximum", 1, 65535),
            ("publish_window", 1, 1 << 20),
            ("inflight_311", 1, 65535),
            ("inflight_max", 1, 65535),
            ("topic_alias_maximum", 0, 65535),
            ("topic_levels", 1, 128),
            ("topic_bytes", 1, 65535),
            ("max_subscriptions", 1, 1 << 20),
            ("max_session_expiry", 0, 0xFFFFFFFF),
            ("max_clients", 1, 1 << 24),
            ("high_water", 1024, 1 << 30),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"edge.{name} is {value}", hint=f"use {low} to {high}")
        if self.maximum_packet_size is not None and self.maximum_packet_size < 1024:
            raise ConfigError(f"edge.maximum_packet_size is {self.maximum_packet_size}", hint="use 1024 or more")
        if self.connect_timeout <= 0 or self.store_interval < 0:
            raise ConfigError("edge.connect_timeout and edge.store_interval are times", hint="use seconds above 0")


class EdgeStats:
    """What the edge counts. Gauges: `connections`, `sessions_away`; all others only rise.

    Attributes:
        connections: open now, with a session.
        sessions_away: persistent sessions whose client is not connected.
        accepted: CONNECTs accepted.
        resumed: of them, with a stored session.
        refused: CONNECTs refused.
        taken_over: connections closed because their client came again.
        protocol_errors: connections closed for what the standard forbids.
        timeouts: connections closed for silence (keep alive, or no CONNECT).
        received, sent: PUBLISH packets by QoS.
        refused_publishes: PUBLISH packets not taken in.
        resent_publishes: PUBLISH packets known again, and acknowledged only.
        slow: times a client fell behind because its socket or its window was full.
        dropped_ephemeral: deliveries of ephemeral events to clients that were behind.
        too_large: messages not sent for a client's Maximum Packet Size [MQTT-3.1.2-25].
        incomplete: times a client missed events because the log no longer has them.
        revoked: filters that connected clients lost because their rights shrank.
        wills: wills published.
        denied_wills: wills dropped when they were due, because their authors may not say them any more.
        store_failures: writes of session state that failed (they are tried again).
        failures: defects met while serving one connection; each is logged.
    """

    __slots__ = (
        "accepted",
        "connections",
        "denied_wills",
        "dropped_ephemeral",
        "failures",
        "incomplete",
        "protocol_errors",
        "received",
        "refused",
        "refused_publishes",
        "resent_publishes",
        "resumed",
        "revoked",
        "sent",
        "sessions_away",
        "slow",
        "store_failures",
        "taken_over",
        "timeouts",
        "too_large",
        "wills",
    )

    def __init__(self) -> None:
        self.connections = self.sessions_away = 0
        self.accepted = self.resumed = self.refused = self.taken_over = 0
        self.protocol_errors = self.timeouts = self.failures = 0
        self.received = [0, 0, 0]
        self.sent = [0, 0, 0]
        self.refused_publishes = self.resent_publishes = 0
        self.slow = self.dropped_ephemeral = self.too_large = self.incomplete = 0
        self.wills = self.denied_wills = self.store_failures = self.revoked = 0

    def as_dict(self) -> dict[str, int]:
        """All figures by name; those by QoS as `received_qos0` and so on."""
        figures: dict[str, int] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, list):
                figures |= {f"{name}_qos{qos}": count for qos, count in enumerate(value)}
            else:
                figures[name] = value
        return figures
