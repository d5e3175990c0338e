from __future__ import annotations

from pathlib import Path

import pytest

from gapless.errors import ConfigError
from gapless.topicmap import load_map

GOOD = """
unmapped = false

[[topic]]
pattern = "shop/orders/{orderId}/placed"
type = "order:placed"
rooms = ["order:{orderId}", "customer:{data.customerId}"]
qos = 2

[[topic]]
pattern = "shop/cursors/{orderId}"
type = "cursor"
rooms = ["order:{orderId}"]
durable = false

[[alias]]
event = "order:watch"
room = "order:{orderId}"
reply = "order:watching"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "map.toml"
    path.write_text(text)
    return path


def test_a_map_is_read_from_toml(tmp_path: Path) -> None:
    topic_map = load_map(write(tmp_path, GOOD))
    route = topic_map.admit("shop/orders/5/placed")
    assert topic_map.rooms_of(route, {"customerId": "9"}) == ("order:5", "customer:9")
    assert topic_map.is_ephemeral(topic_map.route("shop/cursors/5"), qos=1, data=None, raw=b"null", binary=False)
    assert topic_map.aliases[0].reply == "order:watching"
    assert not topic_map.unmapped


@pytest.mark.parametrize(
    ("text", "named", "fix"),
    [
        ("[[topic]]\npattern = 'a'\ntype = 't'\nroom = 'x'", "topic row 1 ('a'): unknown key 'room'", "rooms"),
        ("[[topic]]\npatern = 'a'", "topic row 1: unknown key 'patern'", "pattern"),
        ("[[topic]]\npattern = 'a'", "topic row 1 ('a')", "type"),
        ("[[topic]]\npattern = 'a'\ntype = 't'\nqos = 'one'", "topic row 1 ('a')", "qos"),
        ("[[topics]]\npattern = 'a'", "unknown key 'topics'", "[[topic]]"),
        ("[topic]\npattern = 'a'", "[topic] is not a list", "two brackets"),
        ("unmapped = 'yes'", "unmapped", "true or false"),
        ("unmapped = true", "no [[topic]] row", "pattern"),
        ("[[topic]\n", "not TOML", "docs/topic-map.md"),
        ("[[topic]]\npattern = 'a/#/b'\ntype = 't'", "row 1 ('a/#/b')", "last level"),
    ],
)
def test_a_wrong_file_is_refused_naming_the_row_and_the_fix(tmp_path: Path, text: str, named: str, fix: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_map(path)
    assert str(path) in caught.value.message
    assert named in caught.value.message
    assert fix in caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_map(tmp_path / "absent.toml")
