"""A network in memory: dials, connections, and the faults of real ones.

Nothing here reads any clock but trio's, and all chance comes from one seed.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, final

import trio

from trio_wsprim._values import check_seconds

from ._log import FrameLog, Recorder
from ._memory import BUFFER_SIZE, MemoryStream, Pipe, Way
from ._peer import Peer, PeerClosed
from ._pinning import dials_to
from ._transport import MemoryTransport

# What calls of a peer raise when the connection has ended.
_ENDS: Final = (PeerClosed, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
# Of payload that the log keeps.
_LOG_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Dial:
    """One call of `MemoryNetwork.open_stream`, however it ended.

    Attributes:
        time: On trio's clock, in seconds.
    """

    host: str
    port: int
    time: float


@final
class MemoryNetwork:
    """A network without wires, to which every url leads.

    Give its `open_stream` to what is to be tested; and its `transport` too, to go without bytes, which is faster. Or
    let `replacing_tcp` do both for all that is dialled meanwhile.

    `accept` then tells each connection's other end, as a scripted `Peer`.
    Faults take the coming dials in the order in which they were asked for.

    Args:
        buffer_size: How many bytes each direction of a connection holds unread, at
            least 1. A writer waits for room beyond that.
        seed: Of all chance in here: what is garbled, and `jitter`. The same seed gives the same run.

    Attributes:
        dials: Every dial, refused and stalled ones too, in order.
        live: How many connections the client has open now. One that the peer
            dropped or reset counts until the client closes its own end.
        most_live: The most that ever were live at once.
        to_server: What the way to the server is like; its `latency`, `jitter` and `bandwidth` may be set.
        to_client: The same of the way back.
        log: Every dial, handshake and frame.
    """

    __slots__ = (
        "_arrive",
        "_arrived",
        "_buffer_size",
        "_faults",
        "_recorder",
        "_rng",
        "_streams",
        "_thawed",
        "dials",
        "live",
        "log",
        "most_live",
        "to_client",
        "to_server",
    )

    def __init__(self, *, buffer_size: int = BUFFER_SIZE, seed: int = 0) -> None:
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1, got {buffer_size!r}")
        self._buffer_size = buffer_size
        self._faults: deque[_Fault] = deque()
        self._arrive, self._arrived = trio.open_memory_channel[Peer](math.inf)
        self._rng = Random(seed)
        self._recorder = Recorder(_LOG_BYTES)
        # The clients' ends that are open, or were when the network froze; and what wakes those who dial meanwhile.
        self._streams: dict[MemoryStream, None] = {}
        self._thawed: trio.Event | None = None
        self.dials: list[Dial] = []
        self.live: int = 0
        self.most_live: int = 0
        self.to_server: Way = Way(self._rng)
        self.to_client: Way = Way(self._rng)
        self.log: FrameLog = self._recorder.log()

    def __repr__(self) -> str:
        """Count what there is."""
        return f"<MemoryNetwork with {self.live} live connections after {len(self.dials)} dials>"

    # -------------------------------------------------------------------------------- the client's side

    @property
    def transport(self) -> MemoryTransport:
        """What speaks WebSocket over this network without bytes; goes with `open_stream`."""
        return MemoryTransport()

    async def open_stream(self, host: str, port: int) -> MemoryStream:
        """Dial: record it in `dials`, suffer the next fault if there is one, connect.

        Nobody needs to be in `accept`, as with the backlog of a listening socket.

        Raises:
            OSError: If a fault says so.

        Cancellation: atomic, but that the dial may be recorded and its fault used up.
        """
        await trio.lowlevel.checkpoint()
        self.dials.append(Dial(host, port, trio.current_time()))
        number = len(self.dials)
        self._recorder.note(number, "client", "dial", f"{host}:{port}")
        fault = self._faults.popleft() if self._faults else _Fault()
        try:
            await fault.suffer()
            while self._thawed is not None:
                await self._thawed.wait()
        except trio.Cancelled:
            self._recorder.note(number, "client", "given up")
            raise
        except OSError:
            self._recorder.note(number, "server", "refused")
            raise
        return self._connect(number, fault)

    @contextmanager
    def replacing_tcp(self, *, in_bytes: bool = False) -> Generator[None]:
        """Lead all that is dialled in this block here, whatever its url, so that the code under test needs no option.

        `wss:` urls are dialled without TLS. What names an `open_stream` of its own is left alone; so are servers. It
        holds for the whole process: one such block at a time.

        Args:
            in_bytes: Whether what names no transport takes the real one, which speaks in bytes, instead of
                `MemoryTransport`. So it does, too, where `--ws-transport` has pinned one.
        """
        with dials_to(self.open_stream, None if in_bytes else self.transport):
            yield

    # -------------------------------------------------------------------------------- the server's side

    async def accept(self) -> Peer:
        """Wait for the next connection, and give the server's side of it.

        Connections come in the order in which they came about, and also when
        the client has closed its end already.

        Cancellation: atomic.
        """
        return await self._arrived.receive()

    async def serve(self, script: Callable[[Peer], Awaitable[object]]) -> None:
        """Play a script with each connection, in a task of its own, until cancelled.

        Args:
            script: Gets the peer, which has not read the request yet. It need not care about how the connection ends:
                the end of it is no error. When it returns, the connection is closed, as far as it still is open.

        Raises:
            Exception: What a script raises, but for the end of its connection.

        Cancellation: always closes, with a reset, what scripts still run for.
        """
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(_play, script, await self.accept())

    # -------------------------------------------------------------------------------- faults of dials

    def refuse(self, count: int = 1, error: OSError | None = None) -> None:
        """Let `count` dials fail at once.

        Args:
            count: How many.
            error: What they raise; `None` for a new `ConnectionRefusedError` each.
        """

        async def fail() -> None:
            raise error or ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")

        self._faults.extend([_Fault(fail)] * count)

    def stall(self, count: int = 1) -> None:
        """Let `count` dials hang until they are cancelled."""
        self._faults.extend([_Fault(trio.sleep_forever)] * count)

    def delay(self, seconds: float, count: int = 1) -> None:
        """Let `count` dials take that many seconds before they connect."""

        async def wait() -> None:
            await trio.sleep(seconds)

        self._faults.extend([_Fault(wait)] * count)

    def reject(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        reason: str | None = None,
        delay: float = 0.0,
        count: int = 1,
    ) -> None:
        """Let `count` dials connect, and be answered with HTTP instead of a WebSocket; `accept` does not tell them.

        Args:
            status: Any HTTP status.
            headers: With a `Content-Length` or `Transfer-Encoding` among them, no `Content-Length` is added.
            body: Of the answer.
            reason: The words after the status; `None` for the usual ones.
            delay: Seconds from the connection to the answer.
            count: How many.
        """
        check_seconds("delay", delay)
        given = tuple(headers)

        async def answer(peer: Peer) -> None:
            await peer.read_request()
            await trio.sleep(delay)
            await peer.reject(status, given, body, reason=reason)
            await peer.aclose()

        self._faults.extend([_Fault(answer=answer)] * count)

    def swallow(self, count: int = 1) -> None:
        """Let `count` dials connect to nobody: a black hole, that takes what is sent, and never answers."""
        self._faults.extend([_Fault(is_black_hole=True)] * count)

    # -------------------------------------------------------------------------------- faults of all

    def freeze(self) -> None:
        """Let nothing through any more, for any connection, not even a FIN or an RST, until `thaw`; dials hang."""
        if self._thawed is None:
            self._thawed = trio.Event()
            for stream in self._streams:
                stream.freeze()

    def thaw(self) -> None:
        """Let through again, first of all what was held; dials go on. Black holes stay what they are."""
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None
            for stream in self._streams:
                stream.thaw()
            self._streams = {stream: None for stream in self._streams if not stream.is_closed}

    # -------------------------------------------------------------------------------- inside

    def _connect(self, number: int, fault: _Fault) -> MemoryStream:
        clients, servers = self._recorder.taps(number)
        there = Pipe(self._buffer_size, self.to_server, clients)
        back = Pipe(self._buffer_size, self.to_client, servers)
        stream = MemoryStream(there, back, self._hang_up)
        peer = Peer(MemoryStream(back, there), self._rng)
        if fault.is_black_hole:
            stream.freeze()
        else:
            self._streams[stream] = None
            if fault.answer is None:
                self._arrive.send_nowait(peer)
            else:
                # Of the system, since there is no nursery that it could be in; it ends with the connection.
                trio.lowlevel.spawn_system_task(_suffer_end, fault.answer, peer)
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        return stream

    def _hang_up(self, stream: MemoryStream) -> None:
        self.live -= 1
        if self._thawed is None:
            self._streams.pop(stream, None)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a dial.

    Attributes:
        suffer: Comes before the connection, or instead of it.
        answer: Answers it; `None` to leave that to `accept`.
        is_black_hole: Whether it leads to nobody.
    """

    suffer: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint_if_cancelled
    answer: Callable[[Peer], Awaitable[None]] | None = None
    is_black_hole: bool = False


async def _play(script: Callable[[Peer], Awaitable[object]], peer: Peer) -> None:
    """Play a script to its end, and then close as a server does."""
    try:
        await _suffer_end(script, peer)
        if peer.is_open:
            await _suffer_end(Peer.close, peer)
    finally:
        peer.reset()


async def _suffer_end(script: Callable[[Peer], Awaitable[object]], peer: Peer) -> None:
    """Play a script; that its connection ends is no error of its."""
    try:
        await script(peer)
    except _ENDS:
        pass
    except ExceptionGroup as group:
        rest = group.split(_ENDS)[1]
        if rest is not None:
            raise
