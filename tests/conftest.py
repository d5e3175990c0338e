"""What every test has: tests that need a program this machine lacks are skipped, with its name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gapless.testing import (
    find_chromium,
    find_curl,
    find_dynamic_security,
    find_mosquitto,
    find_mosquitto_client,
    find_node,
)
from tests.brokers.rabbitmq import find_rabbitmq

TESTS = Path(__file__).parent
JS = TESTS / "js"
SDK = TESTS.parent / "sdk"


def _node_with_packages() -> str | None:
    return find_node() if (JS / "node_modules").is_dir() else None


def _node_with_sdk() -> str | None:
    return find_node() if (SDK / "node_modules").is_dir() else None


# marker → (finder, what is missing)
_NEEDS = {
    "needs_mosquitto": (find_mosquitto, "Mosquitto"),
    "needs_dynamic_security": (find_dynamic_security, "Mosquitto's plug-in mosquitto_dynamic_security.so"),
    "needs_mosquitto_clients": (lambda: find_mosquitto_client("mosquitto_sub"), "mosquitto_pub and mosquitto_sub"),
    "needs_rabbitmq": (find_rabbitmq, "RabbitMQ with its MQTT plugin"),
    "needs_node": (_node_with_packages, "Node.js with the packages of tests/js"),
    "needs_sdk": (_node_with_sdk, "Node.js with the packages of sdk"),
    "needs_chromium": (find_chromium, "Chromium"),
    "needs_curl": (find_curl, "curl"),
}


# Folders and files whose tests start browsers, brokers and many processes, or try every case of many: `slow`, all of
# them. What is left takes less than three minutes on two cores; `pytest --durations=0` says where it goes.
_SLOW = (
    "brokers/",
    "cli/test_access.py",
    "cli/test_gateway.py",
    "cli/test_restarts.py",
    "client/hybrid/test_faults.py",
    "docs/",
    "examples/",
    "floods/",
    "gateway/test_qos2.py",
    "link/test_check.py",
    "link/test_reconnect.py",
    "matrix/",
    "mqtt/test_roundtrip.py",
    "mqtt_edge/test_long_away.py",
    "resume/",
    "sdk/",
    "security/",
    "torture/",
)


def pytest_configure() -> None:
    """Programs that tests start must hear Ctrl-C, also where a shell ran the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: half of the tests' time is waiting for programs to start and to end."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {
        marker: pytest.mark.skip(reason=f"{marker}: {what} is not on this machine (make setup-test)")
        for marker, (find, what) in _NEEDS.items()
        if find() is None
    }
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
        for marker, skip in missing.items():
            if item.get_closest_marker(marker) is not None:
                item.add_marker(skip)


@pytest.fixture
def js() -> Path:
    """The folder of the JavaScript test clients."""
    return JS
