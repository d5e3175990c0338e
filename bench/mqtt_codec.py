"""Microseconds per packet of the MQTT codec and of topic matching.

    .venv/bin/python bench/mqtt_codec.py

One process, one thread, no I/O. Each figure is the best of several runs: what the code costs on
an otherwise idle core. "single" feeds one packet per call, "batch" 32 in one call.
"""

from __future__ import annotations

import os
import platform
import sys
import timeit
from collections.abc import Callable
from importlib.metadata import version as version_of

from gapless.mqtt import (
    Decoder,
    FilterTree,
    Properties,
    ProtocolVersion,
    Puback,
    PublishTemplate,
    encode,
    encode_publish,
)

TOPIC = "crm/leads/123/updated"
PAYLOAD = b"x" * 200
BATCH = 32
RUNS = 7
CALLS = 20_000


def microseconds(work: Callable[[], object], calls: int = CALLS) -> float:
    """The best time of one call, in microseconds."""
    return min(timeit.repeat(work, number=calls, repeat=RUNS)) / calls * 1e6


def report(name: str, value: float) -> None:
    print(f"{name:<52} {value:8.3f} µs")


def decoding(name: str, raw: bytes, version: ProtocolVersion) -> None:
    decoder = Decoder(version=version, expect_handshake=False)
    many = raw * BATCH
    report(f"{name}, single", microseconds(lambda: decoder.feed(raw)))
    report(f"{name}, batch", microseconds(lambda: decoder.feed(many), CALLS // BATCH) / BATCH)


def filter_tree() -> tuple[FilterTree[str, int], int]:
    """1,000 filters of the kinds that clients of the reference domain hold."""
    tree: FilterTree[str, int] = FilterTree()
    for number in range(250):
        tree.add(f"crm/leads/{number}/+", f"c{number}", 1)
        tree.add(f"crm/users/{number}/#", f"c{number}", 1)
        tree.add(f"crm/notes/{number}/collaboration", f"c{number}", 1)
        tree.add("crm/leads/+/updated" if number < 5 else f"crm/+/{number}/created", f"d{number}", 1)
    return tree, len(tree.match(TOPIC))


def main() -> None:
    print(
        f"Python {platform.python_version()}, msgspec {version_of('msgspec')}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; "
        f"topic {len(TOPIC)} bytes, payload {len(PAYLOAD)} bytes; {' '.join(sys.argv)}"
    )
    with_properties = Properties(
        content_type="application/json", message_expiry_interval=60, user_properties=[("id", "0123456789")]
    )
    for version in ProtocolVersion:
        for qos in (0, 1):
            raw = encode_publish(TOPIC, PAYLOAD, version=version, qos=qos, packet_id=qos)
            decoding(f"PUBLISH QoS {qos} decode, {version.name}", raw, version)
    raw = encode_publish(TOPIC, PAYLOAD, version=ProtocolVersion.V5, qos=1, packet_id=1, properties=with_properties)
    decoding("PUBLISH QoS 1 decode, V5, three properties", raw, ProtocolVersion.V5)
    decoding("PUBACK decode, V311", encode(Puback(7), ProtocolVersion.V311), ProtocolVersion.V311)
    decoding("PUBACK decode, V5", encode(Puback(7), ProtocolVersion.V5), ProtocolVersion.V5)
    template = PublishTemplate(TOPIC, PAYLOAD, version=ProtocolVersion.V5, properties=with_properties)
    report("template.with_packet_id", microseconds(lambda: template.with_packet_id(1, 77)))
    report(
        "PublishTemplate(...) and qos0, V5, three properties",
        microseconds(
            lambda: PublishTemplate(TOPIC, PAYLOAD, version=ProtocolVersion.V5, properties=with_properties).qos0()
        ),
    )
    tree, found = filter_tree()
    report(f"FilterTree.match, {len(tree):,} filters, {found} found", microseconds(lambda: tree.match(TOPIC)))


if __name__ == "__main__":
    main()
