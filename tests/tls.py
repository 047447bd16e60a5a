"""The server's side of TLS, in memory and by Python's own `ssl`; and certificates that its clients trust."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import cache
from typing import final

import trio
import trustme

from trio_wsprim._tls import TlsSession

HOST = "example.test"


@cache
def authority() -> trustme.CA:
    """Whom our clients trust."""
    return trustme.CA()


@cache
def _certificate(names: tuple[str, ...], by: trustme.CA) -> trustme.LeafCert:
    return by.issue_cert(*names)


def server_context(*names: str, by: trustme.CA | None = None) -> ssl.SSLContext:
    """Be one of those hosts, by default `HOST`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificate(names or (HOST,), by or authority()).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """Trust our authority and nobody else: to read the system's takes some 20 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


@final
class TlsServer:
    """One connection of a server: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = (context or server_context()).wrap_bio(self._in, self._out, server_side=True)
        self._fault: ssl.SSLError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._in.write(data)

    def shake_hands(self) -> tuple[bool, bytes]:
        """Go on with the handshake; whether it is done, and what the client is to get."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False, self._out.read()
        return True, self._out.read()

    def read(self) -> bytes:
        """All that can be read now; what is wrong behind it is raised by the next call."""
        plain = b""
        if self._fault is not None:
            raise self._fault
        try:
            while part := self._object.read(65536):
                plain += part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if not plain:
                raise
            self._fault = error
        return plain

    def write(self, data: bytes) -> bytes:
        """Give the cipher of some plain text."""
        self._object.write(data)
        return self._out.read()

    def say_goodbye(self) -> bytes:
        """Give the cipher of a close_notify."""
        with suppress(ssl.SSLWantReadError):
            self._object.unwrap()
        return self._out.read()


def shake_hands(client: TlsSession, server: TlsServer) -> None:
    """Do both sides of a handshake, and let the client read what belongs to it."""
    is_done = False
    while not is_done:
        client.shake_hands()
        server.feed(client.cipher)
        client.sent(len(client.cipher))
        is_done, answer = server.shake_hands()
        if answer:
            client.feed(answer)
    assert client.shake_hands()
    assert client.read() is None


async def serve_handshake(stream: trio.abc.Stream, server: TlsServer) -> None:
    """Do the server's side of a handshake over a stream."""
    is_done = False
    while not is_done:
        server.feed(await stream.receive_some())
        is_done, answer = server.shake_hands()
        await stream.send_all(answer)


def narrow_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends over the kernel, with buffers as small as it allows."""
    ends = trio.socket.socketpair()
    for each in ends:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return trio.SocketStream(ends[0]), trio.SocketStream(ends[1])
