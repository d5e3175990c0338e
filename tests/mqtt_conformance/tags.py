"""Test ids that carry the statements which a test shows: `3.1.1:MQTT-3.1.0-1,MQTT-3.1.0-2`."""

from __future__ import annotations

import pytest

from gapless.mqtt import ProtocolVersion

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5


def tag(version: ProtocolVersion, numbers: str) -> str:
    """The id for these statements, given as `3.1.0-1 3.1.0-2`."""
    return ("3.1.1:" if version is V311 else "5:") + ",".join(f"MQTT-{number}" for number in numbers.split())


def shows(v311: str = "", v5: str = "") -> pytest.MarkDecorator:
    """Run a test, which takes `version`, for each version of which it shows statements."""
    given = [(V311, v311), (V5, v5)]
    return pytest.mark.parametrize(
        "version", [pytest.param(version, id=tag(version, numbers)) for version, numbers in given if numbers]
    )
