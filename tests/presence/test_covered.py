from __future__ import annotations

import pytest

from gapless.presence import CoveredRooms
from gapless.topicmap import crm_map

CRM = crm_map()
NONE: frozenset[str] = frozenset()


def rooms(*filters: str) -> set[str]:
    return set(CoveredRooms(CRM).after(filters, filters, NONE))


@pytest.mark.parametrize("room", ["lead:1", "user:7", "note:9", "activity:3", "org:global", "org:announcements"])
def test_whoever_subscribes_to_the_filters_of_a_room_is_in_it(room: str) -> None:
    assert room in rooms(*CRM.filters_for(room))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["crm/leads/1/#"], {"lead:1"}),
        (["crm/leads/1/+"], {"lead:1"}),
        (["crm/leads/1/created", "crm/leads/1/updated"], set()),  # not all that the room hears
        (["crm/leads/+/updated"], set()),
        (["crm/users/7/presence", "crm/users/7/notifications/+"], {"user:7"}),
        (["#"], {"org:global", "org:announcements"}),
        (["crm/+/+/+", "crm/#"], {"org:global", "org:announcements"}),
        (["$share/group/crm/leads/1/#"], set()),  # one of a group of workers
        (["elsewhere/x"], set()),
    ],
)
def test_filters_and_the_rooms_that_they_cover(filters: list[str], expected: set[str]) -> None:
    assert rooms(*filters) == expected


def test_a_change_looks_only_at_the_rooms_that_it_touches() -> None:
    covered = CoveredRooms(CRM)
    first = covered.after(["crm/leads/1/#"], ["crm/leads/1/#"], NONE)
    both = covered.after(["crm/leads/2/#"], ["crm/leads/1/#", "crm/leads/2/#"], first)
    assert both == {"lead:1", "lead:2"}
    assert covered.after(["crm/leads/1/#"], ["crm/leads/2/#"], both) == {"lead:2"}
    assert covered.after(["elsewhere"], ["crm/leads/2/#", "elsewhere"], both) is both
