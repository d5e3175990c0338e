"""Looking again at what a connection hears: what its rights cover no more, and what must be asked first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from gapless.errors import Forbidden, NotDecided

if TYPE_CHECKING:
    from gapless.auth.gate import Identity


class Verdict(NamedTuple):
    """What a review found; what is in neither list is allowed."""

    denied: list[str]
    undecided: list[str]


def review(
    check: Callable[[Identity, str], None],
    identity: Identity,
    names: Iterable[str],
    *,
    errors: dict[str, Forbidden] | None = None,
) -> Verdict:
    """Ask one of the gate's checks about each room, filter or topic, without suspending.

    A caller that meets undecided names gets them from the application (`Gate.prepare`) and asks again;
    what is undecided still, counts as denied.

    Args:
        errors: is given why each name was denied.
    """
    denied: list[str] = []
    undecided: list[str] = []
    for name in names:
        try:
            check(identity, name)
        except NotDecided:
            undecided.append(name)
        except Forbidden as error:
            denied.append(name)
            if errors is not None:
                errors[name] = error
    return Verdict(denied, undecided)
