"""API keys and JWTs of one stack."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any

_TEN_YEARS = 10 * 365 * 24 * 3600
_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class StackKeys:
    """The secrets of one stack, made once and kept with its data."""

    publishable_key: str
    secret_key: str
    jwt_secret: str
    postgres_password: str
    admin_password: str

    @classmethod
    def generate(cls) -> StackKeys:
        """Return fresh random secrets, in the shapes that hosted projects use."""
        return cls(
            publishable_key=f"sb_publishable_{secrets.token_hex(16)}",
            secret_key=f"sb_secret_{secrets.token_hex(16)}",
            jwt_secret=secrets.token_hex(32),
            postgres_password=secrets.token_hex(16),
            admin_password=secrets.token_hex(16),
        )

    def to_dict(self) -> dict[str, str]:
        """Return the secrets as JSON-ready names and values."""
        return asdict(self)

    def mint_role_token(self, role: str) -> str:
        """Return the JWT that the gateway puts in an opaque key's place.

        Args:
            role: `anon` or `service_role`.
        """
        now = int(time.time())
        claims = {"iss": "supabase", "role": role, "iat": now, "exp": now + _TEN_YEARS}
        return sign(claims, self.jwt_secret)


def mint_user_token(jwt_secret: str, sub: str, claims: dict[str, Any]) -> str:
    """Return an HS256 access token as Supabase Auth issues it: an hour long, unless claimed."""
    now = int(time.time())
    return sign(
        {
            "iss": "supabase",
            "sub": sub,
            "aud": "authenticated",
            "role": "authenticated",
            "iat": now,
            "exp": now + _HOUR,
            **claims,
        },
        jwt_secret,
    )


def sign(claims: dict[str, Any], jwt_secret: str) -> str:
    """Return the claims as a JWT signed with HS256."""
    import jwt  # noqa: PLC0415 - an optional dependency, of the extra "local"

    return jwt.encode(claims, jwt_secret, algorithm="HS256")


def verified_claims(token: str, jwt_secret: str) -> dict[str, Any] | None:
    """Return the claims of a token signed by this stack and still valid, else None."""
    import jwt  # noqa: PLC0415 - an optional dependency, of the extra "local"

    try:
        claims: dict[str, Any] = jwt.decode(
            token, jwt_secret, algorithms=["HS256"], options={"verify_aud": False}
        )
    except jwt.InvalidTokenError:
        return None
    return claims
