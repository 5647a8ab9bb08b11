"""Tokens of a key of the test's own, good ones and forged ones."""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Signer:
    """One Ed25519 key."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        raw = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.jwk = {
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k1",
            "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode(),
        }  # fmt: skip

    def access(self, *revoked: str) -> dict[str, Any]:
        """The server's answer about tokens."""
        return {
            "jwks": {"keys": [self.jwk]}, "issuer": "podium", "tokensRequired": True, "revoked": list(revoked),
            "version": 1,
        }  # fmt: skip

    def token(self, *, without: str = "", **claims: Any) -> str:
        """A good token for workspace `default`, but for what is given."""
        now = int(time.time())
        payload = {
            "iss": "podium", "sub": "u", "jti": "t1", "iat": now, "exp": now + 600, "role": "predict",
            "ws": ["default"],
        } | claims  # fmt: skip
        payload.pop(without, None)
        return jwt.encode(payload, self.key, algorithm="EdDSA", headers={"kid": "k1"})


def unsigned(token: str, algorithm: str = "none") -> str:
    """The same claims without a signature."""
    claims = token.split(".")[1]
    header = (
        base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
    )
    return f"{header}.{claims}."


def tampered(token: str, **claims: Any) -> str:
    """Other claims under the signature of this one."""
    header, payload, signature = token.split(".")
    given = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    changed = base64.urlsafe_b64encode(json.dumps(given | claims).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def signed_with_public_key(signer: Signer, token: str) -> str:
    """The classic confusion: HMAC with the public key as its secret."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, signer.jwk["x"], algorithm="HS256", headers={"kid": "k1"})
