import pytest

from gapless.errors import ConfigError
from gapless.link import LinkOptions, parse_address


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("mqtt://broker.example", "broker.example", 1883, ""),
        ("mqtts://broker.example/", "broker.example", 8883, ""),
        ("ws://broker.example", "broker.example", 80, "/mqtt"),
        ("wss://broker.example/ws?token=x", "broker.example", 443, "/ws?token=x"),
        ("MQTT://[::1]:1999", "::1", 1999, ""),
    ],
)
def test_parts(url: str, host: str, port: int, path: str) -> None:
    address = parse_address(url)
    assert (address.host, address.port, address.path) == (host, port, path)
    assert address.tls == url.lower().startswith(("mqtts", "wss"))
    assert address.websocket == url.startswith("ws")


def test_credentials_are_percent_decoded_and_masked() -> None:
    address = parse_address("mqtts://me%40home:p%3Ass@h:1")
    assert (address.username, address.password) == ("me@home", "p:ss")
    options = LinkOptions(url="mqtts://me%40home:p%3Ass@h:1")
    assert options.credentials == ("me@home", "p:ss")
    for text in (str(address), repr(address), repr(options)):
        assert "p:ss" not in text
        assert "p%3Ass" not in text


def test_token_in_the_query_is_not_shown() -> None:
    assert str(parse_address("wss://h/mqtt?token=secret")) == "wss://h:443/mqtt"


def test_own_credentials_go_before_those_of_the_url() -> None:
    assert LinkOptions(url="mqtt://a:b@h", username="c", password="d").credentials == ("c", "d")


@pytest.mark.parametrize(
    "url",
    [
        "broker.example:1883",
        "http://h",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:99999",
        "mqtt://h/path",
        "ws://h/#x",
        "",
        "://",
    ],
)
def test_wrong_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LinkOptions(url=url)
    assert caught.value.hint


def test_wrong_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        LinkOptions(url="http://me:secret@h:1")
    assert "secret" not in f"{caught.value} {caught.value.hint}"
