"""How much one client may take: counts and rates by connection, user and address. Pure, and shared by every door."""

from gapless.limits.address import Networks, address_group, forwarded_address
from gapless.limits.limiter import FREE, Limiter, Visit
from gapless.limits.options import AddressShares, Limits, Rates, Shares
from gapless.limits.sessions import StoredSessions

__all__ = [
    "FREE",
    "AddressShares",
    "Limiter",
    "Limits",
    "Networks",
    "Rates",
    "Shares",
    "StoredSessions",
    "Visit",
    "address_group",
    "forwarded_address",
]
