from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gapless.config import Settings, load_settings
from gapless.errors import ConfigError

ROOT = Path(__file__).parent.parent


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'port = 1\nmqtt_port = 2\nhost = "localhost"\n[limits]\npayload_bytes = 10\ntopic_levels = 3\n'
    )
    settings = load_settings(
        path,
        environment={
            "GAPLESS_MQTT_PORT": "20",
            "GAPLESS_PORT": "10",
            "GAPLESS_LIMITS__TOPIC_LEVELS": "5",
            "OTHER": "x",
        },
        flags={"port": 100, "data": None},
    )
    assert (settings.port, settings.mqtt_port, settings.host) == (100, 20, "localhost")
    assert (settings.limits.payload_bytes, settings.limits.topic_levels) == (10, 5)
    assert settings.data == Settings().data


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "prot"),
        ("port = 70000", "port is 70000"),
        ("port = 'many'", "port"),
        ("[limits]\npayload = 1", "payload"),
        ("[edge]\nnonsense = 1", "nonsense"),
        ("port = ", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), environment={})
    assert named in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_settings(tmp_path / "absent.toml", environment={})


def test_secrets_are_masked() -> None:
    settings = load_settings(environment={"GAPLESS_LINK__URL": "mqtt://me:hush@host"}, flags={"token": "hush"})
    assert "hush" not in repr(settings)
    assert "hush" not in repr(settings.link)


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("db", False)]
)
def test_loopback_is_known(host: str, *, loopback: bool) -> None:
    assert Settings(host=host).on_loopback is loopback


def test_the_page_of_settings_is_up_to_date() -> None:
    script = ROOT / "scripts" / "configuration.py"
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
