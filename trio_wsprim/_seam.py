"""The seam between the socket and whatever speaks WebSocket underneath it.

A `Transport` turns a byte stream into a `Link`. Everything above (buffers, reconnecting, heartbeat) knows
only these words; everything below (trio-websocket, wsproto, h11) is known only to `trio_wsprim.transports`.
TCP, TLS, proxies and deadlines are settled before a transport sees the stream.

What travels is batches, because the cost of a message in Python is the scheduler and the system call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import trio

from trio_wsprim._request import Rejection, Request
from trio_wsprim._values import Message


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping frame to send; the peer answers with a `Pong` of the same payload (RFC 6455, 5.5.2).

    Attributes:
        payload: At most 125 bytes.
    """

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong frame that came in (RFC 6455, 5.5.3).

    Attributes:
        payload: That of the ping which it answers; pings before that one are answered by it too.
    """

    payload: bytes


Outgoing: TypeAlias = Message | Ping
Incoming: TypeAlias = Message | Pong


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What a client asks for in its opening handshake (RFC 6455, 4.1).

    Attributes:
        host: The `Host` header: brackets around IPv6, no default port.
        resource: Path and query as sent, at least `/`.
        headers: Further headers, checked already, in the order given.
        subprotocols: In order of preference; checked already.
        max_message_bytes: The largest message that may come in, as bytes of payload; `None` for no limit.
    """

    host: str
    resource: str
    headers: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = ()
    max_message_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What a server does with an opening handshake (RFC 6455, 4.2).

    Attributes:
        remote: The client's address, for the request; `None` if it has none.
        judge: Is asked once the request is known to be a handshake: `None` to accept it. What it raises comes out of
            `accept`; the client is answered 500.
        subprotocols: Those that we speak, the most wanted first.
        max_message_bytes: As for `Upgrade`.
    """

    remote: tuple[str, int] | None
    judge: Callable[[Request], Awaitable[Rejection | None]]
    subprotocols: tuple[str, ...] = ()
    max_message_bytes: int | None = None


class Refused(Exception):
    """A client was turned away, or went away, before there was a link.

    Args:
        sentence: Why; quotes nothing of the client.
        status: Of the answer that it got; `None` if there was nobody to answer.
    """

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ending:
    """How a link ended.

    Attributes:
        code: The peer's close code, 1005 if it gave none, 1006 if it sent no close frame; 1002, 1007 or 1009
            where we closed for its breach of the protocol.
        reason: What it said beside the code.
        clean: Whether close frames went both ways.
        is_breach: Whether we closed for the peer's breach of the protocol, so that code and reason are ours.
    """

    code: int
    reason: str
    clean: bool
    is_breach: bool = False


class Link(Protocol):
    """One open WebSocket connection, from the end of its handshake to the end of its stream.

    One task may send while another receives; two that send, or two that receive, are refused. The link answers
    pings by itself, as long as somebody is in `receive`.
    """

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose, one of those asked for; `None` if it chose none."""
        ...

    @property
    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of the server's answer, names in lower case."""
        ...

    @property
    def items_sent(self) -> int:
        """How many items of batches have been handed to the network to their last byte.

        Exact once `send` has returned, failed or been cancelled, so that the caller knows which messages were
        cut short or never begun.
        """
        ...

    @property
    def heard_at(self) -> float:
        """When the last byte came in, on trio's clock; at first, when the link opened."""
        ...

    @property
    def moved_at(self) -> float:
        """When the network last took a byte of ours, on trio's clock."""
        ...

    @property
    def is_direct(self) -> bool:
        """Whether its calls cost no task of their own, so that whoever sends or receives may do it himself.

        If so, `send_nowait` asks the network, and a `receive` in a user's task is as good as one in ours. If not,
        both are left to the tasks of the socket.
        """
        ...

    def send_nowait(self, batch: Sequence[Outgoing]) -> bool:
        """Take a batch, and hand over what goes without waiting.

        Returns:
            Whether that was all of it; if not, `send(())` hands over the rest. It fails as well, if this has.

        Raises:
            Exception: As `send`, before anything was taken.
        """
        ...

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Hand a batch to the network, in order.

        Raises:
            ConnectionClosed: If the peer or the network ended the connection.
            trio.ClosedResourceError: If our side already closed it.
            trio.BusyResourceError: If another task is sending.

        Cancellation: may be partial. `items_sent` tells what went out whole. A message may have been torn, so a
        cancelled send leaves the link fit only for `abort`.
        """
        ...

    async def receive(self) -> Sequence[Incoming]:
        """Wait for messages and pongs, and return what is there, at least one, in order.

        A pong, or a message that had to be put together or inflated, may come alone, and the rest with the next call.

        Raises:
            ConnectionClosed: When the connection has ended, after all that came before the end was returned. Its
                code is 1002, 1007 or 1009 if the peer broke the protocol; the link then owes it a close frame,
                which `aclose` delivers.
            trio.ClosedResourceError: If our side already closed it.
            trio.BusyResourceError: If another task is receiving.

        Cancellation: atomic. Nothing is lost; the next call goes on from there.
        """
        ...

    def interrupt(self) -> None:
        """Have a `receive` that another task waits in end with `trio.ClosedResourceError`; nothing is closed by that.

        Only a direct link need do it.
        """
        ...

    async def aclose(self, code: int, reason: str) -> None:
        """Finish the closing handshake, or begin it if nobody has, and wait for the peer to hang up.

        No `send` may be running, and no `receive`; but on a link that is direct, a `receive` that another task waits
        in ends with `trio.ClosedResourceError`, by `abort` too. Returns in any case, but sets no deadline: the caller
        does, and calls `abort` afterwards whatever happened, and finds the outcome in `ending`. What still comes in
        is discarded.

        Cancellation: may be partial. The link is fit only for `abort`; `ending` tells how far it came.
        """
        ...

    @property
    def ending(self) -> Ending:
        """How the link ended, as far as is known: 1006 until a close frame came in or was provoked."""
        ...

    async def abort(self) -> None:
        """Close the stream now, without a word to the peer. Twice is fine.

        Cancellation: always closes.
        """
        ...


class Transport(Protocol):
    """Speaks WebSocket over any byte stream."""

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        """Do the client's opening handshake (RFC 6455, 4.1).

        The link's own tasks go into `nursery`; none of them ever raises, and all end when the nursery is
        cancelled. From this call on the stream is the transport's: it is closed by `Link.abort`, or here if this
        call raises.

        Raises:
            ConnectionRejected: The server answered, with HTTP but not 101.
            ConnectionFailed: It answered with something else, or hung up; `permanent` if its 101 was wrong.

        Cancellation: always closes the stream.
        """
        ...


class ServerTransport(Protocol):
    """Speaks WebSocket over any byte stream, as a server."""

    async def accept(self, nursery: trio.Nursery, stream: trio.abc.Stream, reception: Reception) -> Link:
        """Do the server's opening handshake (RFC 6455, 4.2).

        The link's tasks and the stream are dealt with as by `Transport.connect`. Sets no deadline.

        Raises:
            Refused: The client was answered with something other than 101, or has gone.
            Exception: What `judge` raised.

        Cancellation: always closes the stream.
        """
        ...
