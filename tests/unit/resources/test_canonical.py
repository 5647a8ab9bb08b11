"""Requests as the gateway makes them; that a real Envoy does the same, the gateway's tests say."""

import pytest

from podium.gateway.render import listener
from podium.resources.canonical import GATEWAY_HEADERS, check_part, check_path, is_gateways
from podium.resources.patterns import matches_whole


@pytest.mark.parametrize(
    "path", ["", "/", "/infer", "/a/b/", "/x%20y", "/~!$&'()*,;=:@", "/a..b", "/versionsx", "/%c3%a9"]
)
def test_a_canonical_path_is_taken(path: str) -> None:
    check_path(path)
    check_part(path)


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/a//b", "/a/b"), ("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/a/..", "/"), ("/a/.", "/a/"), ("/%41%2d", "/A-"),
        ("/a\\b", "/a/b"), ("/{a}", "/%7Ba%7D"), ("/%2e/b", "/b"), ("/a/..;x/b", "/b"), ("/a/%2e;/b", "/a/.;/b"),
    ],
)  # fmt: skip
def test_another_one_is_told_its_form(path: str, seen: str) -> None:
    with pytest.raises(ValueError, match="before any rule looks") as refused:
        check_path(path)
    assert str(refused.value).startswith(f"the gateway makes {seen} of it")


@pytest.mark.parametrize(
    "path", ["/a%2Fb", "/%00", "/a?b", "/a#b", "/a b", "/../x", "/versions/1/infer", "/versions", "/%4", "/é"]
)
def test_what_never_reaches_a_rule_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_path(path)


def test_the_headers_that_the_listener_takes_out_are_known() -> None:
    assert set(listener._OURS) <= set(GATEWAY_HEADERS)
    assert is_gateways("X_Podium-Caller")
    assert not is_gateways("x-podium-preview")


def test_patterns_go_by_bytes_as_envoys_do() -> None:
    assert not matches_whole(".", "é")
    assert matches_whole("..", "é")
    assert matches_whole("é", "é")
    assert not matches_whole("[é]", "é")
