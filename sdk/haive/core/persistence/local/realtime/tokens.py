"""Who a token speaks for, and the platform's words where it speaks for nobody."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt
import orjson

if TYPE_CHECKING:
    from jwt.types import Options

# Expired ones are told from bad ones below, in the platform's words.
_OPTIONS: Options = {
    "verify_aud": False,
    "verify_sub": False,
    "verify_jti": False,
    "verify_exp": False,
}


class RefusedError(Exception):
    """A request that the platform answers with a code and a sentence.

    Args:
        code: The code, in front of the reason of a refused join.
        message: The sentence, which is all that a closing channel hears.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = f"{code}: {message}"


@dataclass(frozen=True, slots=True)
class Identity:
    """The role and claims that policies see. Equal ones see the same rows."""

    role: str
    claims: str
    """The token's claims as JSON."""
    expires_at: int
    """Seconds since 1970."""


def read_token(token: str, jwt_secret: str) -> Identity:
    """Return whom a token of this stack speaks for.

    Raises:
        RefusedError: It is not valid, or not valid any more.
    """
    try:
        claims = jwt.decode(token, jwt_secret, algorithms=["HS256"], options=_OPTIONS)
    except jwt.InvalidSignatureError as error:
        raise RefusedError("JwtSignatureError", "Failed to validate JWT signature") from error
    except jwt.InvalidTokenError as error:
        raise RefusedError("MalformedJWT", "The token provided is not a valid JWT") from error
    role, expires_at = claims.get("role"), claims.get("exp")
    if not isinstance(role, str) or not isinstance(expires_at, int):
        raise RefusedError("InvalidJWTToken", "Fields `role` and `exp` are required in JWT")
    identity = Identity(role=role, claims=orjson.dumps(claims).decode(), expires_at=expires_at)
    refuse_expired(identity)
    return identity


def refuse_expired(identity: Identity) -> None:
    """Raise what an expired token gets.

    Raises:
        RefusedError: It has expired.
    """
    ago = int(time.time()) - identity.expires_at
    if ago >= 0:
        raise RefusedError("InvalidJWTToken", f"Token has expired {ago} seconds ago")
