from __future__ import annotations

import pytest

from gapless.limits import Networks, address_group, forwarded_address


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_what_is_counted_as_one(address: str, group: str) -> None:
    assert address_group(address) == group


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("198.51.100.1, 203.0.113.5", "203.0.113.5"),  # the first was said by the client
        ("203.0.113.5, 10.0.0.2, 10.0.0.3", "203.0.113.5"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.2", None),
        ("unknown", None),
        ("203.0.113.5, _hidden", None),
        ("", None),
    ],
)
def test_whom_a_proxy_speaks_for(header: str, address: str | None) -> None:
    assert forwarded_address(header, Networks(["10.0.0.0/8"])) == address
