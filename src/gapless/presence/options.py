"""Settings of presence."""

from __future__ import annotations

import msgspec

from gapless.errors import ConfigError

CRM_TOPIC = "crm/users/{userId}/presence"
"""Where the reference domain tells who is online."""


class PresenceOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How presence is counted and told. Times in seconds.

    Attributes:
        grace: how long a user whose last connection is gone still counts as there: a reload of the page, or
            a phone's change of network, then makes nobody flicker.
        start_grace: the same after the start of the gateway, for users who were online before: clients come
            back with delays.
        interval: changes are gathered for so long, and then told at once.
        max_users: most users that are listed of one room. A room with more is told by its snapshot alone, which
            says that it is not complete.
        publish: topic, with the level `{userId}`, to which is published that a user came online or went
            offline, retained; empty for none. By default `crm/users/{userId}/presence` with the map of the
            reference domain, and none with another map.
    """

    grace: float = 5.0
    start_grace: float = 15.0
    interval: float = 0.2
    max_users: int = 1000
    publish: str | None = None

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the option.
        """
        for name in ("grace", "start_grace", "interval"):
            if not 0 <= getattr(self, name) <= 3600:
                raise ConfigError(f"presence.{name} is {getattr(self, name)}", hint="use seconds from 0 to 3600")
        if not 1 <= self.max_users <= 100_000:
            raise ConfigError(f"presence.max_users is {self.max_users}", hint="use 1 to 100000")
        if self.publish and self.publish.split("/").count("{userId}") != 1:
            raise ConfigError(
                f"presence.publish is {self.publish!r}", hint=f"use a topic with one level {{userId}}: {CRM_TOPIC}"
            )
