from __future__ import annotations

import gapless.testing


def test_the_public_names_are_these_and_documented() -> None:
    assert sorted(gapless.testing.__all__) == [
        "Broker",
        "BrokerConfig",
        "BrokerUnavailable",
        "Certificates",
        "Ending",
        "Gateway",
        "KeyPair",
        "Link",
        "NodeScript",
        "ProcessFailed",
        "SERVE_COMMAND",
        "Server",
        "ToolUnavailable",
        "Way",
        "find_chromium",
        "find_curl",
        "find_dynamic_security",
        "find_mosquitto",
        "find_mosquitto_client",
        "find_node",
        "free_port",
        "make_certificates",
        "run_broker",
        "run_gateway",
        "run_node",
    ]
    for name in gapless.testing.__all__:
        value = getattr(gapless.testing, name)
        if callable(value) and isinstance(getattr(value, "__module__", None), str) and "gapless" in value.__module__:
            assert value.__doc__, name
