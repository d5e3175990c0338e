from pathlib import Path
from typing import Any

import pytest

from gapless.errors import ConfigError
from gapless.link import LinkOptions
from gapless.testing import make_certificates


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"url": "mqtts://h", "cert_file": Path("c.pem")}, "key_file"),
        ({"ca_file": Path("ca.pem")}, "ca_file"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"subscribe_qos": 3}, "subscribe_qos"),
        ({"publish_qos": 0}, "publish_qos"),
        ({"publish_qos": 1, "publish_qos_least": 2}, "publish_qos_least"),
        ({"window": 0}, "window"),
        ({"reconnect_min": 2.0, "reconnect_max": 1.0}, "reconnect_min"),
        ({"keepalive": 0}, "keepalive"),
        ({"subscribe": ("a/#/b",)}, "subscribe"),
        ({"publish": ("",)}, "publish"),
        ({"status_topic": "a/+"}, "status_topic"),
        ({"history_topic": "gapless/#"}, "history_topic"),
        ({"history_replies": "a/#/b"}, "history_replies"),
        ({"history_topic": "gapless/replies/ask"}, "overlap"),
        ({"history_topic": "gapless/heartbeat"}, "overlap"),
        ({"heartbeat": 0.0}, "heartbeat"),
        ({"history_rate": 0}, "history_rate"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        LinkOptions(**({"url": "mqtt://h"} | changes))
    assert caught.value.hint


def test_plain_connection_has_no_tls() -> None:
    assert LinkOptions(url="mqtt://h").tls_context() is None


def test_certificate_files_are_checked(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    pair: dict[str, Any] = {"cert_file": made.client.certificate, "key_file": made.client.key}
    assert LinkOptions(url="mqtts://h", ca_file=made.ca, **pair).tls_context() is not None
    wrongs: list[dict[str, Any]] = [
        {"ca_file": tmp_path / "absent.pem"},
        {"ca_file": made.client.key},
        {"cert_file": made.client.certificate, "key_file": made.server.key},
        {"cert_file": tmp_path / "absent.pem", "key_file": made.client.key},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError) as caught:
            LinkOptions(url="mqtts://h", **wrong).tls_context()
        assert str(tmp_path) in caught.value.message
