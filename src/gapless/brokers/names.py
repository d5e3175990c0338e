"""Names at a broker: user names and client ids that nobody else can have.

A broker knows sessions by their client ids alone. So these begin with the name of the user and `~`, a
character that no name holds: `7~phone` is user 7's, whatever other users are called.
"""

from __future__ import annotations

from urllib.parse import quote

from gapless.auth import Identity

SEPARATOR = "~"
_SAFE = "@!$&'()*,;="  # `:` divides virtual host and user at RabbitMQ, `/`, `+` and `#` levels of topics


def name_of(identity: Identity) -> str:
    """The name at a broker: the user's, escaped; of a service `~` and its key's name; none of the anonymous."""
    if identity.user_id is not None:
        return _escaped(identity.user_id)
    if identity.service and identity.token_id is not None:
        return SEPARATOR + _escaped(identity.token_id)
    return ""


def _escaped(text: str) -> str:
    return quote(text, safe=_SAFE).replace(SEPARATOR, "%7E")


def is_own_username(identity: Identity, username: str) -> bool:
    """Whether it may call itself so: its name, or its name, `~` and more."""
    name = name_of(identity)
    return username == name or bool(name and username.startswith(name + SEPARATOR))


def is_own_client_id(identity: Identity, client_id: str) -> bool:
    """Whether the client id is its own: its name, `~` and more. The anonymous have any without a `~`."""
    name = name_of(identity)
    return client_id.startswith(name + SEPARATOR) if name else SEPARATOR not in client_id
