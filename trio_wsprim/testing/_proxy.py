"""A TCP proxy that does to real sockets what networks do: reset, hang up, freeze, refuse, dawdle.

It knows bytes, not WebSockets, so that anything over TCP can be tried with it.
"""

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from types import TracebackType
from typing import Final, Self, final

import trio

from trio_wsprim._scopes import peeled
from trio_wsprim._values import check_count, check_number, check_seconds

_HOST: Final = "127.0.0.1"
# What one direction of a connection holds at most: so many reads of so many bytes. Then we stop reading, and TCP
# pushes back on the sender. Many small reads, so that a slow network can hold all that a talkative end says meanwhile.
_CHUNK_BYTES: Final = 4 * 1024
_MAX_CHUNKS: Final = 128
# A limited bandwidth is dealt out in portions of that many seconds; finer than this is lost in the noise.
_PORTION: Final = 0.02
# After our FIN we read on, because closing with bytes unread would send RST. An end that does not hang up in its
# turn gets it after all, that many seconds later.
_LINGER: Final = 1.0
# Lingering for no time at all is how BSD sockets are told to send RST.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyStatistics:
    """What a proxy has done so far.

    Attributes:
        connections: Those that came about at both ends.
        refused: Those that `refuse` broke at once.
        live: How many clients are connected now; one that is being closed counts.
        bytes_to_target: Bytes that the target's socket took.
        bytes_to_clients: Bytes that the clients' sockets took.
    """

    connections: int
    refused: int
    live: int
    bytes_to_target: int
    bytes_to_clients: int


@final
class _Weather:
    """What all connections of a proxy suffer, and what they have carried.

    Attributes:
        carried: Bytes passed on, to the target and to the clients.
        connections: How many were passed on to the target.
    """

    __slots__ = ("_thawed", "bandwidth", "carried", "connections", "jitter", "latency", "rng", "slice_bytes")

    def __init__(self, rng: Random) -> None:
        self._thawed = trio.Event()
        self._thawed.set()
        self.rng = rng
        self.latency = 0.0
        self.jitter = 0.0
        self.slice_bytes: int | None = None
        self.bandwidth: float | None = None
        self.carried = [0, 0]
        self.connections = 0

    @property
    def is_frozen(self) -> bool:
        return not self._thawed.is_set()

    def freeze(self) -> None:
        if not self.is_frozen:
            self._thawed = trio.Event()

    def thaw(self) -> None:
        self._thawed.set()

    async def wait_thawed(self) -> None:
        while self.is_frozen:  # again, since it may freeze once more before the waiter runs
            await self._thawed.wait()

    def arrival(self) -> float:
        """Say when what is read now shall be passed on, on trio's clock."""
        return trio.current_time() + self.latency + self.rng.uniform(0, self.jitter)

    def portion(self) -> int:
        """Say how many bytes may go out at once."""
        most = _CHUNK_BYTES
        if self.slice_bytes is not None:
            most = min(most, self.rng.randint(1, self.slice_bytes))
        if self.bandwidth is not None:
            most = min(most, max(1, int(self.bandwidth * _PORTION)))
        return most

    async def pay(self, size: int) -> None:
        """Wait as long as the bandwidth makes so many bytes take."""
        await trio.sleep(0 if self.bandwidth is None else size / self.bandwidth)


@final
class _Connection:
    """One client's connection, and ours to the target for it."""

    __slots__ = ("_is_ending", "_is_reset", "_scope", "_streams", "_weather")

    def __init__(self, client: trio.SocketStream, weather: _Weather) -> None:
        self._weather = weather
        self._streams = [client]
        # Around passing on, then around lingering.
        self._scope = trio.CancelScope()
        self._is_ending = False
        self._is_reset = False

    async def run(self, target: tuple[str, int]) -> None:
        """Pass on until both ends are done, or a fault ends it.

        Cancellation: always closes.
        """
        try:
            with self._scope:
                await self._pass_on(target)
            if self._is_ending:
                await self._linger()
        finally:
            self._close()

    def reset(self) -> None:
        """End it with RST to both ends."""
        self._is_reset = True
        self._is_ending = False
        self._scope.cancel()

    def fin(self) -> None:
        """End it with FIN to both ends."""
        if self._is_reset or self._is_ending:
            return
        for stream in self._streams:
            _shut_down(stream)
        self._is_ending = True
        self._scope.cancel()

    async def _pass_on(self, target: tuple[str, int]) -> None:
        try:
            there = await trio.open_tcp_stream(*target)
        except OSError:
            self.reset()
            return
        client = self._streams[0]
        self._streams.append(there)
        self._weather.connections += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, there, 0)
            nursery.start_soon(self._pump, there, client, 1)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, way: int) -> None:
        """Carry one direction: read, hold, write."""
        hold, held = trio.open_memory_channel[tuple[float, bytes]](_MAX_CHUNKS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, source, hold)
            await self._write(held, sink, way)

    async def _read(self, source: trio.SocketStream, hold: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
        try:
            data = b"?"
            while data:
                data = await source.receive_some(_CHUNK_BYTES)
                await hold.send((self._weather.arrival(), data))
        except trio.BrokenResourceError:
            # A reset overtakes and destroys what is on its way, but not even it gets through a frozen network.
            await self._weather.wait_thawed()
            self.reset()

    async def _write(
        self, held: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.SocketStream, way: int
    ) -> None:
        async for due, data in held:
            await trio.sleep_until(due)
            await self._weather.wait_thawed()
            if not data:
                _shut_down(sink)
                return
            try:
                await self._write_slices(memoryview(data), sink, way)
            except OSError:
                self.reset()

    async def _write_slices(self, rest: memoryview, sink: trio.SocketStream, way: int) -> None:
        weather = self._weather
        while rest:
            # The socket may become writable long after it was asked. So wait first and look then: `send_all` would
            # let bytes out of a network that froze meanwhile.
            await trio.lowlevel.wait_writable(sink.socket)
            if weather.is_frozen:
                await weather.wait_thawed()
                continue
            sent = await sink.socket.send(rest[: weather.portion()])
            weather.carried[way] += sent
            rest = rest[sent:]
            await weather.pay(sent)

    async def _linger(self) -> None:
        """Let both ends see our FIN, and hang up in their turn; what they still say is discarded."""
        with trio.move_on_after(_LINGER) as self._scope:
            async with trio.open_nursery() as nursery:
                for stream in self._streams:
                    nursery.start_soon(_discard, stream)

    def _close(self) -> None:
        for stream in self._streams:
            if self._is_reset:
                _break(stream)
            stream.socket.close()


@final
class FaultProxy:
    """A TCP proxy on the loopback interface, with faults on command.

    In short::

        async with FaultProxy("127.0.0.1", server_port) as proxy:
            async with create_reconnecting_ws(f"ws://{proxy.host}:{proxy.port}") as ws:
                proxy.latency = 0.05
                proxy.reset()

    Commands never wait, hold for all connections open now, and, where they describe a state (frozen, refusing, slow),
    for all to come. A connection carries bytes in both directions, and the EOF or RST with which an end leaves. It
    holds at most some 512 KiB in each direction; then the sender has to wait, as with TCP.

    Leaving the block closes all connections and the listener; no task and no socket stays behind. The user's own
    exception comes out as it is.

    Args:
        target_host: Where to connect to for each client.
        target_port: The same.
        seed: Of the chance in `jitter` and `slice_bytes`. The order in which real sockets ask for it is not ours, so
            two runs are alike, not the same.

    Attributes:
        host: Where clients connect to, an IPv4 address.
        port: Likewise; 0 outside the block. While the block lasts it stays ours, whatever `refuse` does.
    """

    __slots__ = (
        "_connections",
        "_is_refusing",
        "_refused",
        "_run",
        "_target",
        "_weather",
        "host",
        "port",
    )

    def __init__(self, target_host: str, target_port: int, *, seed: int | None = None) -> None:
        self._target = (target_host, target_port)
        self._weather = _Weather(Random(seed))
        self._connections: set[_Connection] = set()
        self._is_refusing = False
        self._refused = 0
        self._run: AbstractAsyncContextManager[None] | None = None
        self.host: str = _HOST
        self.port: int = 0

    async def __aenter__(self) -> Self:
        """Listen, on a port that the system chooses.

        Raises:
            OSError: If it has none.
            RuntimeError: If the proxy runs already.

        Cancellation: atomic.
        """
        if self._run is not None:
            raise RuntimeError("this FaultProxy runs already")
        run = self._running()
        await run.__aenter__()
        self._run = run
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Close everything.

        Cancellation: always closes.
        """
        assert self._run is not None
        run, self._run = self._run, None
        return await run.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        with peeled():
            async with trio.open_nursery() as nursery:
                (listener,) = await trio.open_tcp_listeners(0, host=self.host)
                serve = partial(trio.serve_listeners, self._serve, [listener], handler_nursery=nursery)
                await nursery.start(serve)
                self.port = listener.socket.getsockname()[1]
                try:
                    yield
                finally:
                    self.port = 0
                    nursery.cancel_scope.cancel()

    async def _serve(self, client: trio.SocketStream) -> None:
        if self._is_refusing:
            self._refused += 1
            _break(client)
            return  # trio closes it, which is what sends the RST
        connection = _Connection(client, self._weather)
        self._connections.add(connection)
        try:
            await connection.run(self._target)
        finally:
            self._connections.remove(connection)

    # -------------------------------------------------------------------------------- faults

    def reset(self) -> None:
        """Break every connection with RST to both ends; what is on its way is destroyed."""
        for connection in self._connections:
            connection.reset()

    def fin(self) -> None:
        """End every connection with FIN to both ends, as a process that exits does; what is held here is lost.

        Each end reads what had been passed on to it before, and then EOF. What it says from now on is discarded; when
        both have hung up, or after a second, the sockets are closed.
        """
        for connection in self._connections:
            connection.fin()

    def freeze(self) -> None:
        """Pass nothing on from now on, not even an end's leaving, and keep TCP open: a black hole, until `thaw`.

        New connections come about, and freeze too. What clients send is held, up to the bound; after that their TCP
        is pushed back on. `reset` and `fin` work all the same.
        """
        self._weather.freeze()

    def thaw(self) -> None:
        """Pass on again, first of all what was held."""
        self._weather.thaw()

    def refuse(self) -> None:
        """Break every new connection at once with RST, until `accept`. Those that are open stay.

        The listener itself stays open, for while it is closed another program might get its port.
        """
        self._is_refusing = True

    def accept(self) -> None:
        """Take new connections again."""
        self._is_refusing = False

    @property
    def latency(self) -> float:
        """Seconds that bytes take from one end to the other, each way; 0 at first. It holds for what comes in later."""
        return self._weather.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        check_seconds("latency", seconds)
        self._weather.latency = seconds

    @property
    def jitter(self) -> float:
        """At most so many seconds, by chance, on top of `latency`; 0 at first. Order is kept."""
        return self._weather.jitter

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        check_seconds("jitter", seconds)
        self._weather.jitter = seconds

    @property
    def slice_bytes(self) -> int | None:
        """Bytes are passed on in slices of 1 to this many, drawn by chance; `None`, at first, for as they come."""
        return self._weather.slice_bytes

    @slice_bytes.setter
    def slice_bytes(self, size: int | None) -> None:
        check_count("slice_bytes", size, least=1, none=True)
        self._weather.slice_bytes = size

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second, for each direction of each connection; `None`, at first, for no limit."""
        return self._weather.bandwidth

    @bandwidth.setter
    def bandwidth(self, bytes_per_second: float | None) -> None:
        if bytes_per_second is not None:
            check_number("bandwidth", bytes_per_second, least=1)
        self._weather.bandwidth = bytes_per_second

    # -------------------------------------------------------------------------------- looking

    def statistics(self) -> ProxyStatistics:
        """Take a reading of the counters, over all connections so far."""
        to_target, to_clients = self._weather.carried
        return ProxyStatistics(
            connections=self._weather.connections,
            refused=self._refused,
            live=len(self._connections),
            bytes_to_target=to_target,
            bytes_to_clients=to_clients,
        )


def _shut_down(stream: trio.SocketStream) -> None:
    """Send FIN, if there still is anybody to get it."""
    with suppress(OSError):
        stream.socket.shutdown(socket.SHUT_WR)


def _break(stream: trio.SocketStream) -> None:
    """Make the next close an RST; where the other end was faster, there is nothing to break any more."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


async def _discard(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
