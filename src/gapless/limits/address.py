"""Network addresses: which belong together, which are trusted, and whom a proxy speaks for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gapless.errors import ConfigError

_REMEMBERED = 4096


class Networks:
    """A list of addresses and networks.

    Args:
        names: such as `10.0.0.0/8`, `::1`.
        setting: where they come from, for the error.

    Raises:
        ConfigError: one of them is neither an address nor a network.
    """

    def __init__(self, names: Iterable[str], *, setting: str = "networks") -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for name in names:
            try:
                self._networks.append(ip_network(name, strict=False))
            except ValueError as error:
                raise ConfigError(
                    f"{setting}: {error}", hint="use addresses and networks, such as 10.0.0.0/8"
                ) from error

        self._contains = lru_cache(_REMEMBERED)(self._look)  # each connection asks several times

    def __contains__(self, address: object) -> bool:
        return self._contains(address)

    def _look(self, address: object) -> bool:
        found = _parse(address)
        return found is not None and any(found in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


@lru_cache(_REMEMBERED)
def address_group(address: str) -> str:
    """What is counted as one: an IPv4 address, or the /64 that one IPv6 subscriber usually has whole (RFC 6177)."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed) if parsed is not None else address


def forwarded_address(header: str, trusted: Networks) -> str | None:
    """Whom a trusted proxy speaks for, by its `X-Forwarded-For`: the last address that no trusted proxy has.

    Everything left of it was said by a client, and may be a lie. None where the header names nobody else.
    """
    for part in reversed(header.split(",")):
        name = part.strip()
        if name.startswith("["):  # [2001:db8::1]:4711
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:  # 192.0.2.1:4711
            name = name.partition(":")[0]
        parsed = _parse(name)
        if parsed is None:
            return None
        if parsed not in trusted:
            return str(parsed)
    return None


def _parse(address: object) -> IPv4Address | IPv6Address | None:
    if isinstance(address, IPv4Address | IPv6Address):
        return address
    try:
        parsed = ip_address(str(address).partition("%")[0])  # fe80::1%eth0
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
