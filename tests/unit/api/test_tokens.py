"""The signing key's file and what it signs."""

import datetime
import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from podium.api.tokens import load_or_create
from podium.resources.errors import Refused, Unauthenticated

NOW = datetime.datetime.now(datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def test_a_token_says_what_it_was_made_for(tmp_path: Path) -> None:
    authority = load_or_create(tmp_path / "key.pem")
    token, claims = authority.issue("ci", "edit", ("a", "b"), HOUR, NOW)
    assert authority.verify(token) == claims
    assert (claims.subject, claims.role, claims.workspaces) == ("ci", "edit", ("a", "b"))
    assert len(claims.id) >= 22, "128 random bits"
    assert authority.issue("ci", "edit", ("a",), HOUR, NOW)[1].id != claims.id


def test_the_key_stays_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "home" / "key.pem"
    first = load_or_create(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert load_or_create(file).key_id == first.key_id
    assert "PRIVATE" not in str(first.jwks())
    assert set(first.jwks()["keys"][0]) == {"kty", "crv", "use", "alg", "kid", "x"}
    file.chmod(0o640)
    with pytest.raises(Refused, match="0640"):
        load_or_create(file)


def test_of_many_starts_one_makes_the_key(tmp_path: Path) -> None:
    found: list[str] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait(10)
        found.append(load_or_create(tmp_path / "key.pem").key_id)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["key.pem"]


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(Refused, match="no Ed25519 key"):
        load_or_create(tmp_path / "key.pem")


def test_a_token_of_another_key_or_time_is_none(tmp_path: Path) -> None:
    mine, theirs = load_or_create(tmp_path / "a.pem"), load_or_create(tmp_path / "b.pem")
    with pytest.raises(Unauthenticated, match="not one of this server's"):
        mine.verify(theirs.issue("x", "admin", ("*",), HOUR, NOW)[0])
    with pytest.raises(Unauthenticated, match="expired"):
        mine.verify(mine.issue("x", "admin", ("*",), HOUR, NOW - 2 * HOUR)[0])
    with pytest.raises(Unauthenticated):
        mine.verify(mine.issue("x", "admin", ("*",), HOUR, NOW + 2 * HOUR)[0])
