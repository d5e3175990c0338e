from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.client.event_stream import EventStreamDecoder, ServerSentEvent


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = EventStreamDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_an_event_ends_with_an_empty_line() -> None:
    assert decode(b"id: e:1\ndata: {}\n") == []
    assert decode(b"id: e:1\ndata: {}\n\n") == [ServerSentEvent("message", "{}", "e:1")]


def test_names_are_for_one_event_and_ids_stay() -> None:
    first, second = decode(b"event: a\nid: 7\ndata: x\n\ndata: y\n\n")
    assert first == ServerSentEvent("a", "x", "7")
    assert second == ServerSentEvent("message", "y", "7")


def test_an_event_without_data_is_not_dispatched_but_its_id_counts() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(b"event: a\nid: 9\n\ndata: x\n\n") == [ServerSentEvent("message", "x", "9")]
    assert decoder.last_event_id == "9"


def test_an_id_with_a_null_is_ignored() -> None:
    decoder = EventStreamDecoder()
    decoder.feed(b"id: 1\nid: 2\x00\n")
    assert decoder.last_event_id == "1"


def test_comments_unknown_fields_and_a_byte_order_mark_are_skipped() -> None:
    assert decode(b"\xef\xbb", b"\xbf:\nfoo: bar\n: x\ndata\ndata: y\n\n") == [ServerSentEvent("message", "\ny", "")]


def test_takes_one_space_after_the_colon_and_no_more() -> None:
    assert decode(b"data:  x\n\ndata:y\n\n") == [
        ServerSentEvent("message", " x", ""),
        ServerSentEvent("message", "y", ""),
    ]


def test_lines_end_with_cr_lf_or_both_and_with_nothing_else() -> None:
    text = "data: a\u2028b\u0085c\x0bd\r\ndata: e\rdata: f\n\r\n".encode()
    assert decode(text) == [ServerSentEvent("message", "a\u2028b\u0085c\x0bd\ne\nf", "")]


def test_reads_the_hint_for_reconnecting() -> None:
    decoder = EventStreamDecoder()
    decoder.feed(b"retry: 1500\nretry: soon\n")
    assert decoder.retry_ms == 1500


def test_an_endless_event_is_refused() -> None:
    decoder = EventStreamDecoder(limit=100)
    with pytest.raises(ValueError, match="larger than 100"):
        decoder.feed(b"data: " + b"x" * 200)


def test_an_endless_event_of_short_lines_is_refused() -> None:
    decoder = EventStreamDecoder(limit=100)
    with pytest.raises(ValueError, match="larger than 100"):
        decoder.feed(b"data: xxxxxxxxxx\n" * 20)


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ValueError):
        decode(b"data: \xff\n\n")


@given(
    events=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_how_the_bytes_are_cut_changes_nothing(events: list[str], end: str, cuts: list[int]) -> None:
    text = "".join(f"id: {n}{end}data: {event}{end}{end}" for n, event in enumerate(events)).encode()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(edges)]
    # A CR at the very end may be half a line end; a comment line follows it, as heartbeats do.
    found = decode(*chunks, b":\n")
    assert found == [ServerSentEvent("message", event, str(n)) for n, event in enumerate(events)]
