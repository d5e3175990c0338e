"""The cache of stored state: what was put last, within its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gapless.eventlog import StateCache

keys = st.sampled_from(["a", "b", "c", "long key"])
steps = st.lists(st.one_of(st.tuples(keys, st.binary(max_size=20)), st.tuples(keys, st.none())))


@given(steps=steps, bound=st.integers(0, 60))
def test_it_knows_what_was_put_last_or_nothing(steps: list[tuple[str, bytes | None]], bound: int) -> None:
    cache = StateCache(bound)
    kept: dict[str, bytes] = {}  # in the order in which they were put
    for key, value in steps:
        kept.pop(key, None)
        if value is None:
            cache.drop(key)
        else:
            cache.put(key, value)
            kept[key] = value
        while sum(len(name) + len(data) for name, data in kept.items()) > bound:
            del kept[next(iter(kept))]
        assert {name: cache.get(name) for name in ("a", "b", "c", "long key")} == {
            name: kept.get(name) for name in ("a", "b", "c", "long key")
        }
