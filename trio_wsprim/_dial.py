"""From a url to a byte stream: TCP by happy eyeballs, proxy, TLS. Every failure comes out as `ConnectionFailed`."""

from __future__ import annotations

import ssl
from functools import cache
from math import inf
from socket import SOCK_STREAM, AddressFamily, inet_pton
from typing import cast

import trio

from trio_wsprim._errors import ConnectionFailed
from trio_wsprim._options import Settings, check_type
from trio_wsprim._tls import start_tls
from trio_wsprim._urls import Target


async def dial(target: Target, settings: Settings) -> trio.abc.Stream:
    """Open the stream that the upgrade will run over.

    Raises:
        ConnectionFailed: The host cannot be reached, or its certificate does not hold.

    Cancellation: always closes what was opened.
    """
    try:
        stream = await _open_stream(target, settings)
        check_type("what open_stream returns", stream, trio.abc.Stream)
    except Exception as error:  # noqa: BLE001 - raised again, as what it was about
        cause = _unwrapped(error)
        raise ConnectionFailed(f"{target.shown} cannot be reached: {_tell(cause)}") from cause
    if not target.secure:
        return stream
    try:
        return await _secure(stream, target, settings)
    except Exception as error:  # noqa: BLE001 - raised again, as what it was about
        cause = _unwrapped(error)
        raise ConnectionFailed(f"{target.shown} failed in TLS: {_tell(cause)}") from cause


async def _secure(stream: trio.abc.Stream, target: Target, settings: Settings) -> trio.abc.Stream:
    try:
        context = settings.ssl_context or _default_context()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    hostname = target.host.removesuffix(".")  # the root's dot is DNS's matter; certificates have none
    return await start_tls(stream, context, hostname)


async def _open_stream(target: Target, settings: Settings) -> trio.abc.Stream:
    if settings.open_stream is not None:
        return await settings.open_stream(target.host, target.port)
    if settings.proxy is not None:
        return await _open_through_proxy(settings.proxy, target)
    return await _open_tcp_stream(target.host, target.port)


async def _open_tcp_stream(host: str, port: int) -> trio.SocketStream:
    """Connect by happy eyeballs (RFC 8305); a literal address needs none, and a fifth of the time."""
    try:
        family = AddressFamily.AF_INET6 if ":" in host else AddressFamily.AF_INET
        inet_pton(family, host)
    except OSError:
        return await trio.open_tcp_stream(host, port)
    sock = trio.socket.socket(family, SOCK_STREAM)
    try:
        await sock.connect((host, port))
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


async def _open_through_proxy(proxy: str, target: Target) -> trio.abc.Stream:
    # Imported here, since the extra may be missing; `Settings` has checked that it is not.
    from python_socks.async_.trio import Proxy

    # The attempt's own deadline holds; this one would be a second opinion.
    return trio.SocketStream(await Proxy.from_url(proxy).connect(target.host, target.port, timeout=inf))


@cache
def _default_context() -> ssl.SSLContext:
    """Reading the system's certificates takes some 20 ms, in which nothing else runs: once is enough."""
    return ssl.create_default_context()


def _unwrapped(error: Exception) -> Exception:
    """Take off the wrapper in which trio hands on what TLS or the network said: why, and not that all has failed."""
    inner = error.__cause__
    if isinstance(error, trio.BrokenResourceError) and isinstance(inner, Exception):
        return inner
    if isinstance(error, OSError) and isinstance(inner, ExceptionGroup):
        addresses = cast("ExceptionGroup[Exception]", inner).exceptions
        return addresses[0] if len(addresses) == 1 else error
    return error


def _tell(error: Exception) -> str:
    """Say what went wrong; only the system's own words are repeated, since others may hold secrets."""
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return f"{error}: the server does not seem to speak TLS; is its url ws:?"
    if isinstance(error, trio.BrokenResourceError):
        return "the connection broke"
    return str(error) if isinstance(error, OSError) else type(error).__name__
