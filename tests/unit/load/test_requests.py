"""Requests as bytes, and what must not become one."""

import pytest

from podium.load import bounds
from podium.load.requests import request_bytes, target_of
from podium.load.tls import Tls


def test_a_whole_request() -> None:
    made = request_bytes("/v2/models/x/infer?a=1", "h:80", headers=[("x-user", "ä")], body=b"{}")
    assert made == (
        b"POST /v2/models/x/infer?a=1 HTTP/1.1\r\nhost: h:80\r\nx-user: \xe4\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert (
        request_bytes("/", "h", method="GET", headers=[("Host", "other")])
        == b"GET / HTTP/1.1\r\nHost: other\r\n\r\n"
    )
    assert b"content-length: 0\r\n" in request_bytes("/", "h")


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "/a\r\nx-evil: 1"},
        {"target": "/a b"},
        {"headers": [("x", "1\nx-evil: 1")]},
        {"headers": [("x: y", "1")]},
        {"headers": [("", "1")]},
        {"headers": [("Content-Length", "5")]},
        {"headers": [("transfer-encoding", "chunked")]},
        {"headers": [("x", "\u20ac")]},
        {"method": "GET /x HTTP/1.1"},
    ],
)
def test_nothing_smuggles_a_second_header_or_request(wrong: dict[str, object]) -> None:
    given = {"target": "/", "host": "h"} | wrong
    with pytest.raises(ValueError, match=r"expected|header|cannot"):
        request_bytes(str(given.pop("target")), str(given.pop("host")), **given)  # type: ignore[arg-type]


def test_path_and_query_of_a_url() -> None:
    assert [target_of(url) for url in ("http://h", "http://h/a?b=1#c")] == ["/", "/a?b=1"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/x", "http://localhost:8080/", "http://[::1]:1/"])
def test_this_machine_may_always_be_asked(url: str) -> None:
    assert bounds.destination(url, owned=False).loopback


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://192.0.2.1/x", "192.0.2.1 .* is not this machine"),
        ("http://0.0.0.0:80/", "is not this machine"),
        ("ftp://127.0.0.1/", "expected http"),
        ("http://127.0.0.1:99999/", "expected http"),
        ("http://me:secret@127.0.0.1/", "no credentials"),
        ("http://no-such-host.invalid/", "is not known"),
        ("churn", "expected http"),
    ],
)
def test_who_may_not_be_asked(url: str, words: str) -> None:
    with pytest.raises(bounds.NotAllowed, match=words):
        bounds.destination(url, owned=False)


def test_a_host_of_ones_own_may_be_asked_when_one_says_so() -> None:
    found = bounds.destination("https://192.0.2.1/x?y", owned=True)
    assert (found.address, found.port, found.loopback) == ("192.0.2.1", 443, False)
    assert found.place(Tls(authorities="ca.pem"))["tls"] == {
        "name": "192.0.2.1", "authorities": "ca.pem", "exactly": None, "insecure": False, "certificate": None,
        "key": None,
    }  # fmt: skip


def test_bounds_name_the_option_and_what_is_allowed() -> None:
    bounds.check("--connections", 10, 1, 10_000)
    with pytest.raises(bounds.NotAllowed, match=r"expected 1 to 10,000, got 10001") as refused:
        bounds.check("--connections", 10_001, 1, bounds.MOST_CONNECTIONS)
    assert refused.value.field == "--connections"
