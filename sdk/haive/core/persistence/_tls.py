"""The certificates that HTTPS clients trust, read once a process."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import ssl


@functools.cache
def tls_context(*, http2: bool = False) -> ssl.SSLContext:
    """What httpx else makes for each client, in 25 ms of which the event loop gets nothing.

    One for each choice of protocols: a client writes what it speaks into its context.
    `SSL_CERT_FILE` and `SSL_CERT_DIR` are heard, once.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1", "h2"] if http2 else ["http/1.1"])
    return context
