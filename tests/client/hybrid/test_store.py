"""The store in a file: one client at a time, and what becomes of a client whose store refuses."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gapless.client import Client, MemoryStore, SqliteStore, StorageFailed, Store, StoreInUse
from gapless.client.hybrid.outbox import Entry
from gapless.config import Settings
from gapless.errors import GaplessError
from gapless.gateway import Gateway

ENTRIES = [Entry(f"id-{seq}", seq, b"{}") for seq in range(1, 4)]
HOLDER = """
import sys
from gapless.client import SqliteStore
from gapless.client.hybrid.outbox import Entry
store = SqliteStore(sys.argv[1])
store.open("me")
store.keep([Entry("of-the-other", 1, b"{}")])
store.keep_cursor("e:7")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "folder" / "client.sqlite")


def test_what_is_kept_is_found_by_its_owner_alone(store: Store) -> None:
    assert store.open("me") == (None, [])
    store.keep(ENTRIES)
    store.keep(ENTRIES[:1])  # again: it is the same one
    store.forget(["id-2", "unknown"])
    store.keep_cursor("e:1")
    store.keep_cursor("e:2")
    store.close()
    assert store.open("another") == (None, [])
    store.close()
    assert store.open("me") == ("e:2", [ENTRIES[0], ENTRIES[2]])
    store.close()


def test_a_file_has_one_client_also_among_processes_and_is_free_once_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "client.sqlite"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreInUse, match="client.sqlite"):
            SqliteStore(path).open("me")
        holder.kill()
        holder.wait()
    store = SqliteStore(path)
    assert store.open("me") == ("e:7", [Entry("of-the-other", 1, b"{}")])
    with pytest.raises(StoreInUse):
        SqliteStore(path).open("another")
    store.close()


async def test_a_second_client_on_a_file_is_told_and_the_first_goes_on(tmp_path: Path) -> None:
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        path = tmp_path / "client.sqlite"
        async with Client(gateway.http_url, store=path) as first:
            with pytest.raises(StoreInUse):
                async with Client(gateway.http_url, store=path):
                    pass
            assert (await first.enqueue("note:collaboration", {"noteId": "1"})).is_stored
        async with Client(gateway.http_url, store=path) as next_one:
            assert (await next_one.enqueue("note:collaboration", {"noteId": "1"})).is_stored


def _make_unusable(path: Path, how: str) -> None:
    match how:
        case "a folder":
            path.mkdir()
        case "below a file":
            path.parent.write_text("")
        case "no database":
            path.write_bytes(b"this is something else, and longer than the header of a database" * 20)
        case "of a later version":
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA user_version = 99")
            connection.close()


@pytest.mark.parametrize("how", ["a folder", "below a file", "no database", "of a later version"])
async def test_a_store_that_cannot_be_used_is_told_once_and_the_client_goes_on_in_memory(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "place" / "client.sqlite" if how == "below a file" else tmp_path / "client.sqlite"
    _make_unusable(path, how)
    told: list[GaplessError] = []
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        async with Client(gateway.http_url, store=path, on_error=lambda error, _: told.append(error)) as rt:
            events = rt.subscribe("note:1")
            await events.ready()
            for n in range(3):
                publication = await rt.enqueue("note:collaboration", {"noteId": "1", "n": n})
                assert not publication.is_stored
                await publication
                event = await anext(events)
                assert event.data["n"] == n  # type: ignore[union-attr]
    assert [error.code for error in told] == ["storage_failed"]
    assert isinstance(told[0], StorageFailed)
    assert str(path) in told[0].message


async def test_a_full_disk_is_told_once_and_what_it_does_not_take_is_sent_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit of pages stands for the disk: what it raises is the same."""
    store = SqliteStore(tmp_path / "client.sqlite")
    told: list[str] = []
    async with Gateway(Settings(port=0, mqtt_port=None, data=None)) as gateway:
        async with Client(gateway.http_url, store=store, on_error=lambda error, _: told.append(error.code)) as rt:
            assert (await rt.enqueue("note:collaboration", {"noteId": "1"})).is_stored
            assert store._connection is not None
            store._connection.execute("PRAGMA max_page_count = 1")
            publications = [await rt.enqueue("note:collaboration", {"text": "x" * 9000, "noteId": "1"}) for _ in "123"]
            assert [each.is_stored for each in publications] == [False] * 3
            assert [(await each).id for each in publications] == [each.id for each in publications]
            assert told == ["storage_failed"]
            store._connection.execute("PRAGMA max_page_count = 1000000")
            assert (await rt.enqueue("note:collaboration", {"noteId": "1"})).is_stored
    assert told == ["storage_failed"]
