from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gapless.auth import AuthOptions
from gapless.config import Settings, load_settings
from gapless.errors import ConfigError
from gapless.gateway import Gateway

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
        ("[edge]\nnonsense = 1", "wrong setting edge: Object contains unknown field `nonsense`"),
        ("port = ", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), environment={})
    assert named in caught.value.message
    assert caught.value.hint


def test_a_text_in_place_of_a_list_is_told_how_lists_are_written() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={"GAPLESS_HTTP__ORIGINS": "http://localhost:5173"})
    assert caught.value.message == "wrong setting http.origins: Expected `array`, got `str`"
    assert """GAPLESS_HTTP__ORIGINS='["…"]'""" in caught.value.hint


def test_lists_come_from_the_environment_too() -> None:
    settings = load_settings(environment={"GAPLESS_HTTP__ORIGINS": '["http://a", "http://b"]', "GAPLESS_HOST": "[::1]"})
    assert settings.http.origins == ("http://a", "http://b")
    assert settings.host == "[::1]"  # a text that only looks like one


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


def test_without_keys_a_gateway_listens_on_loopback_only() -> None:
    """From Python as from the command line."""
    away = Settings(host="0.0.0.0", data=None)
    with pytest.raises(ConfigError) as caught:
        Gateway(away)
    assert "0.0.0.0" in caught.value.message
    assert "gapless token --new-secret" in caught.value.hint
    Gateway(msgspec.structs.replace(away, insecure=True))
    Gateway(msgspec.structs.replace(away, auth=AuthOptions(secret="of-thirty-two-bytes-and-a-few-more")))


def test_the_settings_of_auth_are_read_and_masked(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[auth]\nsecret = "of-the-file"\naudience = "a"\nanonymous_roles = []\n'
        '[[auth.keys]]\nkid = "1"\nsecret = "do-not-show"\n[auth.ask]\nurl = "http://h"\ntoken = "nor-this"\n',
    )
    settings = load_settings(path, environment={"GAPLESS_AUTH__SECRET": "of-the-environment"})
    assert settings.auth is not None
    assert (settings.auth.secret, settings.auth.audiences) == ("of-the-environment", ("a",))
    assert (settings.auth.anonymous_roles, settings.auth.keys[0].kid) == ((), "1")
    shown = repr(settings) + repr(settings.auth) + repr(settings.auth.ask)
    assert not any(secret in shown for secret in ("of-the-environment", "do-not-show", "nor-this"))
