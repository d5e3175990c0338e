from __future__ import annotations

import re

from gapless.transports.socketio.secret import secret_text


def test_ids_are_of_one_form_and_differ_over_several_draws() -> None:
    ids = [secret_text() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{20}", each) for each in ids)
