"""A server: one task for each connection, behind a crash barrier, with the same socket in it that clients have."""

# pyright: reportPrivateUsage=false
# A server makes its sockets, and is a friend of theirs.

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from math import inf
from typing import Final, TypeAlias, Unpack, cast, final

import trio

from trio_wsprim._errors import ConnectionClosed
from trio_wsprim._frames import share
from trio_wsprim._listening import accept_forever, find_place, find_remote
from trio_wsprim._options import as_message
from trio_wsprim._request import Rejection, Request, is_same_origin
from trio_wsprim._room import Room, message_size
from trio_wsprim._scopes import peeled_nursery, serving
from trio_wsprim._seam import Link, Reception, Refused
from trio_wsprim._server_options import Listener, ServerOptions, ServerSettings, read_server_settings
from trio_wsprim._throttle import ThrottledLog
from trio_wsprim._tls import start_tls
from trio_wsprim._values import ReadyState, check_count, check_seconds
from trio_wsprim._websocket import ServerWebSocket
from trio_wsprim.transports import default_transport

_NORMAL: Final = 1000
_GOING_AWAY: Final = 1001
_INTERNAL_ERROR: Final = 1011
# Seconds that a cancelled server leaves its clients to be told.
_GRACE: Final = 5.0
# Seconds after which a client that found no place may try again.
_RETRY_AFTER: Final = "5"
# Beyond `max_connections`, so many may be in their handshake at once; of more, not even the request is read.
_DOORSTEP: Final = 100
# Clients between two looks at what else wants to run.
_CLIENTS_PER_SCHEDULE_POINT: Final = 64

Handler: TypeAlias = Callable[[ServerWebSocket], Awaitable[object]]

_log: Final = logging.getLogger("trio_wsprim.server")


@final
class Server:
    """A running server. `create_ws_server` and `serve_ws` make it."""

    def __init__(self, handler: Handler, settings: ServerSettings, listeners: Sequence[Listener]) -> None:
        self._handler = handler
        self._settings = settings
        self._listeners = listeners
        self._transport = settings.transport or default_transport()
        self._place = find_place(listeners)
        self._accepting = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        # Everybody who is here, and those of them who have got a place.
        self._visitors: set[ServerWebSocket] = set()
        self._seated: set[ServerWebSocket] = set()
        # When those who are still here are cut off, once we close.
        self._deadline = inf
        self._closed = trio.Event()
        # Whose broadcast it is: one that gives way in the middle must not be overtaken.
        self._turns = trio.StrictFIFOLock()
        # Two, so that strangers who are turned away by the thousand cannot keep a handler's error out of the log.
        self._door_log = ThrottledLog(_log)
        self._log = ThrottledLog(_log)

    def __repr__(self) -> str:
        """Show where it listens, and for how many."""
        return f"<Server {self.url} with {len(self.connections)} connections>"

    # -------------------------------------------------------------------------------- looking

    @property
    def port(self) -> int:
        """The TCP port; of several listeners, the first one's; 0 if none has any."""
        return 0 if self._place is None else self._place[1]

    @property
    def url(self) -> str:
        """The url of the first TCP listener, as it is reached from this machine; empty if there is none."""
        if self._place is None:
            return ""
        host, port = self._place
        scheme = "ws" if self._settings.ssl_context is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"

    @property
    def connections(self) -> frozenset[ServerWebSocket]:
        """Those that are open now."""
        return frozenset(ws for ws in self._seated if ws.state.value is ReadyState.OPEN)

    # -------------------------------------------------------------------------------- sending

    async def broadcast(
        self, message: str | bytes | bytearray | memoryview, *, to: Iterable[ServerWebSocket] | None = None
    ) -> frozenset[ServerWebSocket]:
        """Put one message into the outbox of many connections, without waiting for any; its frame is made once.

        Broadcasts of several tasks reach every client in the order in which they were called.

        Where an outbox is full, its policy decides; in place of waiting and of raising, the message is dropped for that
        client, with a `DropEvent` on its socket.

        Args:
            message: As for `send`.
            to: For whom, such as those in a room; `None` for all that are open. Those that are closed are left out.

        Returns:
            Those that did not get it, since their outbox was full.

        Raises:
            TypeError: If it is neither text nor binary.
            UnicodeEncodeError: If the text has a lone surrogate.
            MessageTooBig: If it is larger than the outboxes.

        Cancellation: may be partial. Each has got the message or not.
        """
        checked = as_message(message)
        size = message_size(checked)
        Room(self._settings.socket.outbox).check_size(size)
        connections = tuple(self._seated if to is None else to)
        shared = share(checked)
        full: list[ServerWebSocket] = []
        async with self._turns:
            for number, ws in enumerate(connections, 1):
                if ws.state.value is ReadyState.OPEN and not ws._outbox.offer(shared, size):
                    full.append(ws)
                if number % _CLIENTS_PER_SCHEDULE_POINT == 0:
                    await trio.lowlevel.checkpoint()
        return frozenset(full)

    # -------------------------------------------------------------------------------- closing

    async def aclose(self, grace: float = _GRACE) -> None:
        """Stop accepting, close all with 1001, and wait for outboxes to drain and for handlers to end.

        Called by a handler it does not wait, or that would wait for itself.

        Args:
            grace: Seconds for that. After it, connections are aborted, and handlers cancelled.

        Raises:
            ValueError: If `grace` is negative or no finite number.

        Cancellation: always closes; at once, and without waiting.
        """
        check_seconds("grace", grace)
        assert self._nursery is not None, "it runs before anybody is given it"
        self._say_goodbye(trio.current_time() + grace)
        try:
            if _is_within(self._nursery):
                await trio.lowlevel.checkpoint()
            else:
                await self._closed.wait()
        except BaseException:
            self._nursery.cancel_scope.cancel()
            raise

    def _say_goodbye(self, deadline: float) -> None:
        """Begin to close; of several deadlines the earliest counts."""
        assert self._nursery is not None
        self._accepting.cancel()
        self._deadline = min(self._deadline, deadline)
        self._nursery.cancel_scope.deadline = self._deadline
        for ws in self._visitors:
            ws._say_goodbye(_GOING_AWAY, self._deadline)

    async def wait_closed(self) -> None:
        """Wait until it accepts nobody any more, all connections have ended, and so have their handlers.

        Cancellation: atomic.
        """
        await self._closed.wait()

    # -------------------------------------------------------------------------------- accepting

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept and serve until `aclose`. In a nursery of its own, so that who closes the server is not cancelled."""
        try:
            async with peeled_nursery() as self._nursery:
                task_status.started()
                await self._accept()
        finally:
            self._closed.set()

    async def _accept(self) -> None:
        with self._accepting:
            async with peeled_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(accept_forever, listener, self._take, self._door_log)

    async def _take(self, stream: trio.abc.Stream) -> None:
        """Have a task of its own serve a client, unless there are too many at the door already."""
        assert self._nursery is not None
        most = self._settings.max_connections
        if most is not None and len(self._visitors) >= most + _DOORSTEP:
            self._door_log.tell(logging.WARNING, "more than %s clients: hung up on one", len(self._visitors))
            await _hang_up(stream)
        elif self._accepting.cancel_called:  # in the very moment in which it came
            await _hang_up(stream)
        else:
            ws = ServerWebSocket(self._settings.socket, partial(self._welcome, stream))
            self._visitors.add(ws)
            self._nursery.start_soon(self._serve, ws, stream)

    async def _serve(self, ws: ServerWebSocket, stream: trio.abc.Stream) -> None:
        """Serve one client; nothing that goes wrong with it concerns any other."""
        try:
            await self._host(ws)
        except Refused as refusal:
            self._door_log.tell(logging.INFO, "%s: no connection: %s", ws._shown, refusal)
        except Exception as error:  # noqa: BLE001 - of `authorize`, and whatever nobody has thought of
            self._log.tell(logging.ERROR, "%s: no connection", ws._shown, error=error)
        finally:
            self._visitors.discard(ws)
            self._seated.discard(ws)
            await _hang_up(stream)  # if we were to close before its handshake began, nobody has

    # -------------------------------------------------------------------------------- the handshake

    async def _welcome(self, stream: trio.abc.Stream, ws: ServerWebSocket, nursery: trio.Nursery) -> Link:
        """Do all that comes before a connection is open."""
        settings = self._settings
        remote = find_remote(stream)
        with trio.CancelScope() as scope:
            if settings.handshake_timeout is not None:
                scope.deadline = trio.current_time() + settings.handshake_timeout
            if settings.ssl_context is not None:
                stream = await self._secure(stream)
            reception = Reception(
                remote=remote,
                judge=partial(self._judge, ws),
                subprotocols=settings.subprotocols,
                max_message_bytes=settings.socket.message_limit,
            )
            return await self._transport.accept(nursery, stream, reception)
        raise Refused(f"no handshake within {settings.handshake_timeout} s")

    async def _secure(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        assert self._settings.ssl_context is not None
        try:
            return await start_tls(stream, self._settings.ssl_context, None)
        except (trio.BrokenResourceError, OSError) as error:
            raise Refused("no TLS handshake") from error

    async def _judge(self, ws: ServerWebSocket, request: Request) -> Rejection | None:
        """Decide whether a client is let in; it has a place from then on."""
        settings = self._settings
        ws._introduce(request, "ws" if settings.ssl_context is None else "wss")
        if not self._is_welcome(request):
            return Rejection(403, (), b"this origin may not connect\n")
        if settings.max_connections is not None and len(self._seated) >= settings.max_connections:
            return Rejection(503, {"Retry-After": _RETRY_AFTER}, b"too many connections\n")
        is_in = False
        self._seated.add(ws)  # before it is asked about, or many could be, for one place
        try:
            rejection = await self._authorize(request)
            is_in = rejection is None
        finally:
            if not is_in:
                self._seated.discard(ws)
        return rejection

    async def _authorize(self, request: Request) -> Rejection | None:
        if self._settings.authorize is None:
            return None
        verdict = cast("object", await self._settings.authorize(request))
        if not (verdict is None or isinstance(verdict, Rejection)):
            raise TypeError(f"authorize must return a Rejection or None, got {type(verdict).__name__}")
        return verdict

    def _is_welcome(self, request: Request) -> bool:
        allowed = self._settings.origins
        origins = {value for name, value in request.headers if name == "origin"}
        if not origins or allowed == "*":
            return True
        if allowed is not None:
            return {origin.lower() for origin in origins} <= allowed
        return len(origins) == 1 and is_same_origin(origins.pop(), request.header("host") or "")

    # -------------------------------------------------------------------------------- the connection

    async def _host(self, ws: ServerWebSocket) -> None:
        """Run the handler beside the socket, and close that in the way in which the handler ended."""
        async with serving(ws._supervisor.run, ws._supervisor.scope):
            try:
                await ws.wait_open()
            except trio.ClosedResourceError:
                if ws._is_ended_by_us:
                    return  # the server closes, in the middle of a handshake
                raise
            try:
                ws._say_goodbye(await self._handle(ws))
                await ws.wait_closed()
            except BaseException:
                # We are cancelled, or the whole program ends. Clients are told all the same, while their sockets live.
                deadline = min(self._deadline, trio.current_time() + _GRACE)
                with trio.CancelScope(shield=True, deadline=deadline):
                    await ws._close(_GOING_AWAY, "", drain=True)
                raise
        if ws.undelivered and not ws._was_closed:
            self._log.tell(logging.INFO, "%s: %s messages did not arrive", ws._shown, len(ws.undelivered))

    async def _handle(self, ws: ServerWebSocket) -> int:
        """Run the handler; give the code to close with."""
        try:
            await self._handler(ws)
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            self._tell_fault(ws, error)
            return _INTERNAL_ERROR
        except BaseExceptionGroup as group:
            # Of a handler's own nursery, where we have cancelled it: an error beside that must not leave, or it
            # would end everything.
            cancelled, fault = group.split(trio.Cancelled)
            if cancelled is None or not isinstance(fault, Exception):
                raise
            self._tell_fault(ws, fault)
            raise cancelled from None
        return _NORMAL

    def _tell_fault(self, ws: ServerWebSocket, error: Exception) -> None:
        if ws.state.value is not ReadyState.OPEN and _is_of_the_end(error):
            self._log.tell(logging.DEBUG, "%s: the handler ended with its connection", ws._shown)
        else:
            self._log.tell(logging.ERROR, "%s: the handler raised", ws._shown, error=error)


def _is_of_the_end(error: Exception) -> bool:
    """Whether all that a handler has raised is what calls raise once a connection has ended."""
    ends = (ConnectionClosed, trio.ClosedResourceError, trio.EndOfChannel)
    if isinstance(error, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", error).split(ends)[1] is None
    return isinstance(error, ends)


def _is_within(nursery: trio.Nursery) -> bool:
    """Whether the present task lives in a nursery, however deep."""
    above = trio.lowlevel.current_task().parent_nursery
    while above is not None and above is not nursery:
        above = above.parent_task.parent_nursery
    return above is nursery


async def _hang_up(stream: trio.abc.Stream) -> None:
    """Close a stream by force, if it is open. Never raises, and is no cancellation point."""
    with suppress(Exception), trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def create_ws_server(
    handler: Handler, host: str | None = "127.0.0.1", port: int = 0, **options: Unpack[ServerOptions]
) -> AbstractAsyncContextManager[Server]:
    """Serve WebSocket for the time of an `async with` block.

    Leaving the block closes the server as `Server.aclose` does; so does a cancellation, whose handlers are cancelled at
    once, while clients are still told.

    Args:
        handler: Is called with each connection, in a task of its own, once it is open. When it returns, the connection
            is closed with 1000; when it raises, that is logged, and it is closed with 1011. The server goes on.
        host: Name or address to listen on; `None` for all addresses of this machine.
        port: TCP port; 0 for one that is free, which `Server.port` tells.
        options: See `ServerOptions`.

    Raises:
        TypeError: If a value is of the wrong type, at the call.
        ValueError: If a value is out of range or makes no sense, at the call.
        OSError: If it cannot listen there, on entering the block.
    """
    if not callable(handler):
        raise TypeError(f"handler must be an async function, got {type(handler).__name__}")
    check_count("port", port)
    if port > 65535:
        raise ValueError(f"port must be at most 65535, got {port}")
    return _running(handler, host, port, read_server_settings(options))


async def serve_ws(
    handler: Handler,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve WebSocket until cancelled, or until `Server.aclose`: `server = await nursery.start(serve_ws, handler, …)`.

    Args:
        handler: As for `create_ws_server`, as is all that follows.
        host: Where to listen.
        port: TCP port.
        task_status: Gets the server once it listens; `nursery.start` passes it.
        options: See `ServerOptions`.

    Raises:
        TypeError: As `create_ws_server`.
        ValueError: As `create_ws_server`.
        OSError: If it cannot listen there.

    Cancellation: always closes, after having told the clients.
    """
    async with create_ws_server(handler, host, port, **options) as server:
        task_status.started(server)
        await server.wait_closed()


async def _listen(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listen on TCP; what the system says of a port in use does not name the port."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        error.add_note(f"while listening on {host or 'all addresses'}, port {port}")
        raise


@asynccontextmanager
async def _running(handler: Handler, host: str | None, port: int, settings: ServerSettings) -> AsyncGenerator[Server]:
    listeners = settings.listeners or await _listen(host, port)
    server = Server(handler, settings, listeners)
    async with peeled_nursery() as nursery:
        await nursery.start(server._run)
        try:
            yield server
        except BaseException:
            # The error that leaves is the user's; a cancellation that comes on top has had its effect.
            with suppress(trio.Cancelled):
                await server.aclose()
            raise
        await server.aclose()
