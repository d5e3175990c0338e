"""Pages of other sites and names of other hosts, at every door of the HTTP port."""

from __future__ import annotations

from typing import Any

import pytest

from gapless.auth import Credentials, DevelopmentGate, Identity
from gapless.errors import Forbidden
from gapless.limits import AddressShares
from gapless.transports.http import HttpOptions
from gapless.transports.http.errors import WrongHost
from gapless.transports.http.front import Names
from tests.security.site import http, limits, running, upgrade, wire

DOORS = ["/api/events?rooms=org:global", "/socket.io/?EIO=4&transport=polling", "/metrics", "/"]
WEBSOCKETS = [("/socket.io/?EIO=4&transport=websocket", ""), ("/mqtt", "mqtt")]


def check(
    options: HttpOptions, *, host: str = "", origin: str = "", scheme: str = "http", only_local: bool = False
) -> None:
    headers = {name: value.encode() for name, value in ((b"host", host), (b"origin", origin)) if value}
    Names(options, only_local=only_local).check({"scheme": scheme}, headers)


@pytest.mark.parametrize(
    ("host", "origin", "scheme"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", "http"),
        ("events.example.com", "https://events.example.com", "https"),
        ("events.example.com:443", "https://events.example.com", "https"),
        ("events.example.com", "https://events.example.com", "http"),  # a proxy ends TLS
        ("EVENTS.example.com", "http://events.EXAMPLE.com", "ws"),
        ("[::1]:8080", "http://[::1]:8080", "http"),
    ],
)
def test_the_own_origin(host: str, origin: str, scheme: str) -> None:
    check(HttpOptions(), host=host, origin=origin, scheme=scheme)


@pytest.mark.parametrize(
    ("host", "origin", "scheme"),
    [
        ("events.example.com", "https://evil.example", "https"),
        ("events.example.com", "http://events.example.com", "https"),  # a page that anybody on the way wrote
        ("events.example.com", "https://events.example.com:444", "https"),
        ("events.example.com", "https://events.example.com.evil.example", "https"),
        ("events.example.com", "null", "https"),
        ("", "https://events.example.com", "https"),
        ("events.example.com", "file://events.example.com", "http"),
        ("events.example.com", "events.example.com", "http"),
    ],
)
def test_another_origin(host: str, origin: str, scheme: str) -> None:
    with pytest.raises(Forbidden, match="origin"):
        check(HttpOptions(), host=host, origin=origin, scheme=scheme)


def test_listed_origins() -> None:
    options = HttpOptions(origins=("https://app.example.com/", "null"), public_url="https://events.example.com/x")
    for origin in ("https://app.example.com", "null", "https://events.example.com"):
        check(options, host="10.0.0.1:8080", origin=origin)
    check(HttpOptions(origins=("*",)), host="a.example", origin="https://anything.example")
    with pytest.raises(Forbidden):
        check(options, host="10.0.0.1:8080", origin="https://b.app.example.com")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "app.localhost:1", "127.0.0.1:8080", "[::1]", "10.1.2.3"]
)
def test_local_names(host: str) -> None:
    check(HttpOptions(), host=host, only_local=True)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_page_whose_name_was_made_to_point_here(host: str) -> None:
    """DNS rebinding: for the browser its origin is the own one."""
    with pytest.raises(WrongHost):
        check(HttpOptions(), host=host, origin=f"http://{host}", only_local=True)
    check(HttpOptions(), host=host, origin=f"http://{host}")  # where clients must show who they are
    check(HttpOptions(hosts=(host.partition(":")[0],)), host=host, only_local=True)


def test_listed_hosts() -> None:
    options = HttpOptions(
        hosts=("events.example.com", "*.tenants.example.com"), public_url="https://public.example.com"
    )
    for host in ("events.example.com", "a.tenants.example.com:8080", "public.example.com", "192.0.2.1"):
        check(options, host=host)
    with pytest.raises(WrongHost):
        check(options, host="tenants.example.com")


@pytest.mark.parametrize("path", DOORS)
async def test_requests_are_refused_with_a_reason(path: str) -> None:
    async with running() as gateway, http(gateway) as client:
        answer = await client.get(path, headers={"origin": "https://evil.example"})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"
        assert "http.origins" in answer.json()["error"]["hint"]
        answer = await client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 421
        assert answer.json()["error"]["code"] == "wrong_host"
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(("path", "protocol"), WEBSOCKETS)
async def test_websockets_are_refused_with_a_reason(path: str, protocol: str) -> None:
    origins = ("https://app.example.com",)
    async with running(http=HttpOptions(origins=origins)) as gateway:
        for origin, host, status in (
            ("https://evil.example", "127.0.0.1", 403),
            ("null", "127.0.0.1", 403),
            ("http://evil.example", "evil.example", 421),
            ("https://app.example.com", "127.0.0.1", 101),
            (None, "127.0.0.1", 101),
        ):
            async with wire(gateway.http_url) as connection:
                connection.send(upgrade(path, origin=origin, host=host, protocol=protocol))
                answered, headers = await connection.head()
                assert answered == status, origin
                assert "sec-websocket-extensions" not in headers
        assert gateway.front.refused == {"forbidden": 2, "wrong_host": 1}


async def test_polling_and_the_api_share_one_list_of_origins() -> None:
    origin = "https://app.example.com"
    async with running(http=HttpOptions(origins=(origin,))) as gateway, http(gateway) as client:
        for path in DOORS:
            answer = await client.get(path, headers={"origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin, path


class Recorder(DevelopmentGate):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str | None] = []

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.addresses.append(credentials.address)
        return await super().authenticate(credentials)


@pytest.mark.parametrize(("proxies", "address"), [((), "127.0.0.1"), (("127.0.0.1",), "203.0.113.9")])
async def test_only_a_trusted_proxy_says_where_clients_are(proxies: tuple[str, ...], address: str) -> None:
    gate = Recorder()
    async with running(gate=gate, http=HttpOptions(trusted_proxies=proxies)) as gateway, http(gateway) as client:
        headers = {"x-forwarded-for": "1.2.3.4, 203.0.113.9", "x-forwarded-proto": "https"}
        answer = await client.get("/api/connect", headers=headers)
        assert gate.addresses == [address]
        scheme = answer.json()["transports"][0]["url"].partition(":")[0]
        assert scheme == ("https" if proxies else "http")


async def test_a_trailer_is_no_header() -> None:
    """No proxy looks at trailers: what only a proxy may say must not come by one (RFC 9110 §6.5.1)."""
    gate, event = Recorder(), b'{"topic": "a", "data": 1}'
    options = HttpOptions(trusted_proxies=("127.0.0.1",))
    async with running(gate=gate, http=options) as gateway, wire(gateway.http_url) as proxy:
        proxy.send(
            b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"X-Forwarded-For: 203.0.113.9\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\nOrigin: null\r\n\r\n" % (len(event), event)
        )
        assert (await proxy.head())[0] == 201
    assert set(gate.addresses) == {"203.0.113.9"}


@pytest.mark.parametrize(
    "beside", [b"0\r\nA: ", b"0\r\nA: b\r\n", b"1;"], ids=["a trailer", "trailers", "an extension"]
)
async def test_what_stands_beside_a_body_is_bounded(beside: bytes) -> None:
    """Also where the request was answered long ago, and nobody waits for the rest of it."""
    filling = b"A: b\r\n" * 1000 if beside.endswith(b"\n") else b"b" * 6000
    async with running() as gateway, wire(gateway.http_url) as endless:
        endless.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + beside)
        assert (await endless.head())[0] == 200
        with pytest.raises(ConnectionError):
            for _ in range(2000):
                endless.send(filling)
                await endless.writer.drain()


async def test_each_client_behind_a_proxy_has_its_own_share() -> None:
    options: dict[str, Any] = {
        "http": HttpOptions(trusted_proxies=("127.0.0.1",)),
        "limits": limits(address=AddressShares(requests_per_second=1), burst_seconds=2),
    }
    async with running(**options) as gateway, http(gateway) as client:
        answers = [await client.get("/healthz", headers={"x-forwarded-for": "203.0.113.9"}) for _ in range(4)]
        assert [answer.status_code for answer in answers][-1] == 429
        assert (await client.get("/healthz", headers={"x-forwarded-for": "203.0.113.10"})).status_code == 200
        assert (await client.get("/healthz")).status_code == 200  # the proxy itself
