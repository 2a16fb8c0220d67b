"""The stack's front door: one URL, API keys checked and swapped for JWTs as hosted does.

`/rest/v1` goes to PostgREST, `/auth/v1` and `/storage/v1` to the platform API, `/realtime/v1` is
answered in this process.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local.keys import StackKeys, verified_claims

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable
    from pathlib import Path

BODY_LIMIT: Final = 256 * 1024 * 1024
_UPSTREAM_TIMEOUT = 150.0
# PostgREST itself refuses more than 50 KB of headers: let it say so in its own words.
_HEADER_LIMIT = 128 * 1024
# A secret key in a browser is a leaked key: hosted answers 401 to these.
_BROWSER = re.compile(r"mozilla/|opera/|applewebkit/", re.IGNORECASE)
# Hop-by-hop (RFC 9110, 7.6.1), and what belongs to the framing of one connection.
_NOT_FORWARDED = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
        "upgrade",
    }
)
_NO_DEFAULTS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_KEY_PARAMETER = re.compile(r"(?<![^&])apikey=([^&]*)&?")
_NOT_YET = {
    "functions": "Edge functions are not part of the local stack yet.",
}
_NO_STORAGE = (
    "Storage is off: the account `nobody`, which the stack's parts run under for root, cannot"
    " enter the data directory, or its path has a comma. Put it below a directory that every"
    " account may enter, under a name without commas."
)

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


class _Refused(Exception):  # noqa: N818 - an answer, not a failure
    """The gateway answers by itself."""

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message} if hint is None else {"message": message, "hint": hint}


class Gateway:
    """The HTTP server of one stack.

    Args:
        keys: The stack's keys.
        rest: The Unix socket of PostgREST.
        platform: Returns the Unix socket of the platform API, starting that where need be.
        has_storage: Whether the platform API can keep objects.
        realtime: Answers what is for Realtime: a request, its path and a token.
        health: Returns the state of each service, and whether all is well.
    """

    def __init__(
        self,
        *,
        keys: StackKeys,
        rest: Path,
        platform: Callable[[], Awaitable[Path]],
        has_storage: bool,
        realtime: Callable[[web.BaseRequest, str, str], Awaitable[web.StreamResponse]],
        health: Callable[[], tuple[bool, dict[str, Any]]],
    ) -> None:
        self._keys = keys
        self._tokens = {
            keys.publishable_key: keys.mint_role_token("anon"),
            keys.secret_key: keys.mint_role_token("service_role"),
        }
        self._rest = rest
        self._platform = platform
        self._has_storage = has_storage
        self._realtime = realtime
        self._health = health
        self._runner: web.ServerRunner | None = None
        self._upstreams: dict[Path, aiohttp.ClientSession] = {}

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound socket."""
        server = web.Server(
            self._answer,
            access_log=None,
            auto_decompress=False,
            max_line_size=_HEADER_LIMIT,
            max_field_size=_HEADER_LIMIT,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
        for session in self._upstreams.values():
            await session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # the answer is still to begin
            response = await self._route(request)
        except _Refused as refused:
            response = web.json_response(refused.body, status=refused.status)
        if "Origin" in request.headers and not response.prepared:
            response.headers.setdefault("Access-Control-Allow-Origin", "*")
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(request)
        service, rest_of_target = _split(target)
        if service == "rest":
            headers, target = self._for_rest(request.headers, rest_of_target)
            return await self._forward(request, self._rest, target, headers)
        if service == "storage" and not self._has_storage:
            raise _Refused(501, _NO_STORAGE)
        if service in {"auth", "storage"}:
            headers = self._for_platform(request.headers, target)
            try:
                upstream = await self._platform()
            except LocalStackError as error:
                raise _Refused(503, str(error)) from error
            return await self._forward(request, upstream, target, headers)
        if service == "realtime":
            token = self._token_for_realtime(request.headers, target)
            return await self._realtime(request, rest_of_target.partition("?")[0], token)
        if service in _NOT_YET:
            raise _Refused(501, _NOT_YET[service])
        if request.path == "/health":
            healthy, body = self._health()
            return web.json_response(body, status=200 if healthy else 503)
        raise _Refused(404, "no Route matched with those values")

    def _for_rest(self, headers: Headers, target: str) -> tuple[CIMultiDict[str], str]:
        """Return headers and target for PostgREST: the key is gone, a JWT stands for it."""
        key, token, target = self._key_and_token(headers, target)
        forwarded = _forwarded(headers)
        forwarded.popall("apikey", None)
        authorization = headers.get("Authorization")
        if authorization is None:
            forwarded["Authorization"] = f"Bearer {token}"
        elif (bearer := _opaque_bearer(authorization)) is not None:
            if not hmac.compare_digest(bearer.encode(), key.encode()):
                raise _Refused(
                    401,
                    "Invalid API key",
                    "An API key in the Authorization header must equal the apikey header.",
                )
            forwarded["Authorization"] = f"Bearer {token}"
        return forwarded, target

    def _token_for_realtime(self, headers: Headers, target: str) -> str:
        """Return the user's token of a request, or the one that stands for its key."""
        _, token, _ = self._key_and_token(headers, target)
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        bearer = bearer.strip()
        return bearer if scheme.lower() == "bearer" and bearer.count(".") == 2 else token

    def _key_and_token(self, headers: Headers, target: str) -> tuple[str, str, str]:
        """Return a request's key, the token that stands for it, and the target without it."""
        key = headers.get("apikey")
        if key is None and (found := _find_key_parameter(target)) is not None:
            key, target = found
        if not key:
            raise _Refused(
                401,
                "No API key found in request",
                "No `apikey` request header or url param was found.",
            )
        self._check_browser(headers, key)
        token = self._token_for(key)
        if token is None:
            raise _Refused(401, "Invalid API key", "Double check your Supabase API key.")
        return key, token, target

    def _for_platform(self, headers: Headers, target: str) -> CIMultiDict[str]:
        """Return headers for the platform API, which checks keys but knows opaque ones only."""
        key = headers.get("apikey")
        if key is None and (found := _find_key_parameter(target)) is not None:
            key = found[0]
        forwarded = _forwarded(headers)
        if not key:
            return forwarded
        self._check_browser(headers, key)
        role = self._legacy_role(key)
        if role is not None:
            if headers.get("Authorization") == f"Bearer {key}":
                del forwarded["Authorization"]
            key = self._keys.secret_key if role == "service_role" else self._keys.publishable_key
            forwarded["apikey"] = key
        return forwarded

    def _check_browser(self, headers: Headers, key: str) -> None:
        if key.startswith("sb_secret_") and _BROWSER.search(headers.get("User-Agent", "")):
            raise _Refused(
                401,
                "Forbidden use of secret API key in browser",
                "Secret API keys can only be used in a protected environment and should never"
                " be used in a browser.",
            )

    def _token_for(self, key: str) -> str | None:
        for known, token in self._tokens.items():
            if hmac.compare_digest(known.encode(), key.encode()):
                return token
        return None if self._legacy_role(key) is None else key

    def _legacy_role(self, key: str) -> str | None:
        """Return the role of a JWT API key that this stack has signed, else None."""
        if key.count(".") != 2:
            return None
        claims = verified_claims(key, self._keys.jwt_secret)
        role = claims.get("role") if claims is not None else None
        return role if role in {"anon", "service_role"} else None

    async def _forward(
        self, request: web.BaseRequest, upstream: Path, target: str, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        body = await _read_body(request)
        try:
            async with self._session(upstream).request(
                request.method,
                URL(f"http://localhost{target}", encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=_NO_DEFAULTS,
            ) as response:
                return _answered(request, response, await response.read())
        except (aiohttp.ClientError, OSError) as error:
            raise _Refused(503, "The service is restarting, try again.", repr(error)) from error

    def _session(self, upstream: Path) -> aiohttp.ClientSession:
        session = self._upstreams.get(upstream)
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(upstream), limit=0, keepalive_timeout=20),
                timeout=aiohttp.ClientTimeout(total=_UPSTREAM_TIMEOUT),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._upstreams[upstream] = session
        return session


def _split(target: str) -> tuple[str, str]:
    """Return the service that a target names, and what PostgREST gets to see of it."""
    match = re.match(r"/(rest|auth|storage|realtime|functions)/v1(?=[/?]|$)", target)
    if match is None:
        return "", target
    rest = target[match.end() :]
    return match[1], rest if rest.startswith("/") else f"/{rest}"


def _find_key_parameter(target: str) -> tuple[str, str] | None:
    """Return the key in a target's query and the target without it."""
    path, _, query = target.partition("?")
    match = _KEY_PARAMETER.search(query)
    if match is None:
        return None
    rest = (query[: match.start()] + query[match.end() :]).removesuffix("&")
    return match[1], f"{path}?{rest}" if rest else path


def _opaque_bearer(authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.startswith("sb_") else None


def _forwarded(headers: Headers) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _NOT_FORWARDED
    )


async def _read_body(request: web.BaseRequest) -> bytes | None:
    if not request.body_exists:
        return None
    if (request.content_length or 0) > BODY_LIMIT:
        raise _too_large()
    chunks = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> _Refused:
    return _Refused(413, f"The request body is over the limit of {BODY_LIMIT} bytes.")


def _answered(
    request: web.BaseRequest, response: aiohttp.ClientResponse, body: bytes
) -> web.StreamResponse:
    headers = _forwarded(response.headers)
    if request.method == "HEAD" or response.status in {204, 304}:
        if request.method == "HEAD" and "Content-Length" in response.headers:
            headers["Content-Length"] = response.headers["Content-Length"]
        return web.StreamResponse(status=response.status, reason=response.reason, headers=headers)
    return web.Response(status=response.status, reason=response.reason, headers=headers, body=body)


def _preflight(request: web.BaseRequest) -> web.Response:
    return web.Response(
        headers={
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS",
            "Access-Control-Allow-Headers": request.headers.get(
                "Access-Control-Request-Headers", "*"
            ),
            "Access-Control-Max-Age": "3600",
        }
    )
