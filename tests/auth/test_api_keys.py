"""API keys: shown once, kept as hashes, followed while the gateway runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gapless.auth.api_keys import ApiKeys, create_key, read_keys, remove_key
from gapless.errors import ConfigError, Unauthorized


def test_a_key_is_known_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "crm", ["METRICS"])
    assert key not in path.read_text()
    secret = key.split("_", 2)[2]  # it may hold "_" itself
    assert len(secret) == 43
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    identity = ApiKeys(path).identify(key)
    assert (identity.service, identity.token_id, identity.roles) == (True, "crm", frozenset({"METRICS"}))
    assert identity.user_id is None


def test_another_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "crm")
    keys = ApiKeys(path)
    for wrong in (key[:-1], key[:-1] + ("A" if key[-1] != "A" else "B"), key + "x", "gk_", "gk_x_y", key.upper()):
        with pytest.raises(Unauthorized):
            keys.identify(wrong)


def test_a_changed_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = ApiKeys(path)
    assert not keys.reload()
    key = create_key(path, "crm")
    assert keys.reload()
    identity = keys.identify(key)
    assert keys.holds(identity)
    create_key(path, "other")
    assert keys.reload()
    assert keys.holds(identity)  # the key itself did not change
    remove_key(path, "crm")
    again = create_key(path, "crm")
    assert keys.reload()
    assert not keys.holds(identity)
    with pytest.raises(Unauthorized):
        keys.identify(key)
    assert keys.identify(again).token_id == "crm"


def test_a_file_that_cannot_be_read_leaves_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "crm")
    keys = ApiKeys(path)
    path.write_text("{")
    assert not keys.reload()
    assert keys.problem
    assert keys.identify(key).token_id == "crm"


def test_a_file_that_is_gone_holds_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "crm")
    keys = ApiKeys(path)
    path.unlink()
    assert keys.reload()
    with pytest.raises(Unauthorized):
        keys.identify(key)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "a/b"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no name"):
        create_key(tmp_path / "keys.json", name)


def test_a_name_is_taken_once_and_what_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "crm")
    with pytest.raises(ConfigError, match="there is a key"):
        create_key(path, "crm")
    with pytest.raises(ConfigError, match="no key 'x'"):
        remove_key(path, "x")
    assert [key.name for key in read_keys(path)] == ["crm"]


@pytest.mark.parametrize("text", ["no JSON", '{"keys": [{"id": 5}]}', '{"other": 1}', "\udcff"])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        ApiKeys(path)
    with pytest.raises(ConfigError):
        create_key(path, "crm")
    assert path.read_bytes() == before
