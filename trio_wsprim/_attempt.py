"""One attempt: from the functions that say where, to a link that `setup` has approved. All of it in one deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Sequence
from typing import TypeVar, cast, final

import trio

from trio_wsprim._dial import dial
from trio_wsprim._endpoint import Endpoint
from trio_wsprim._errors import ConnectionFailed
from trio_wsprim._options import Settings, as_message, ask
from trio_wsprim._scopes import OneAtATime
from trio_wsprim._seam import Incoming, Link, Pong, Upgrade
from trio_wsprim._urls import Target, check_headers, check_subprotocols, parse_url
from trio_wsprim._values import ConnectEvent, Message
from trio_wsprim.transports import default_transport

T = TypeVar("T")


async def attempt(nursery: trio.Nursery, endpoint: Endpoint, number: int) -> tuple[Link, Sequence[Incoming]]:
    """Make one connection.

    Args:
        nursery: Where the link's tasks live.
        endpoint: For whom.
        number: Which dial in a row, from 1.

    Returns:
        The link, and what `setup` has left unread.

    Raises:
        ConnectionFailed: With the cause.

    Cancellation: always closes what was opened.
    """
    timeout = endpoint.settings.connect_timeout
    with trio.CancelScope() as scope:
        if timeout is not None:
            scope.deadline = trio.current_time() + timeout
        target = await _find_target(endpoint, number)
        link = await _connect(nursery, endpoint.settings, target)
        try:
            return link, await _set_up(endpoint, link, number)
        except BaseException:
            await link.abort()
            raise
    raise ConnectionFailed(f"{endpoint.facts.url} was not open within {timeout} s") from trio.TooSlowError(
        "connect_timeout"
    )


async def _find_target(endpoint: Endpoint, number: int) -> Target:
    """Ask where to dial, and tell those who watch."""
    facts = endpoint.facts
    try:
        url = endpoint.settings.url
        target = url if isinstance(url, Target) else parse_url(await _blame("the url function", ask(url)))
        facts.url = target.shown
    except (TypeError, ValueError) as error:
        raise ConnectionFailed(f"the url function said no url: {error}") from error
    finally:
        endpoint.emit(ConnectEvent(number, facts.url))
    return target


async def _connect(nursery: trio.Nursery, settings: Settings, target: Target) -> Link:
    """Ask for the rest, dial, and upgrade."""
    try:
        headers = check_headers(await _blame("the headers function", ask(settings.headers)))
        subprotocols = check_subprotocols(await _blame("the subprotocols function", ask(settings.subprotocols)))
    except (TypeError, ValueError) as error:
        raise ConnectionFailed(f"a function gave what cannot be sent: {error}") from error
    upgrade = Upgrade(
        host=target.host_header,
        resource=target.resource,
        headers=_with_credentials(headers, target),
        subprotocols=subprotocols,
        max_message_bytes=settings.message_limit,
    )
    stream = await dial(target, settings)
    transport = settings.transport or default_transport()
    return await transport.connect(nursery, stream, upgrade)


def _with_credentials(headers: tuple[tuple[str, str], ...], target: Target) -> tuple[tuple[str, str], ...]:
    """Make user and password of the url Basic auth, unless the headers bring an `Authorization` of their own."""
    has_own = any(name.lower() == "authorization" for name, _ in headers)
    if target.authorization is None or has_own:
        return headers
    return (("Authorization", target.authorization), *headers)


async def _set_up(endpoint: Endpoint, link: Link, number: int) -> Sequence[Incoming]:
    """Run `setup`, if there is one."""
    if endpoint.settings.setup is None:
        return ()
    session = _Session(link, number, endpoint.facts.connections > 0)
    try:
        await _blame("setup", endpoint.settings.setup(session))
    finally:
        session.end()
    return session.unread


async def _blame(what: str, work: Awaitable[T]) -> T:
    """Wait for a user's function. What it raises makes the attempt fail, and is only named: it may tell secrets."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        cause = _only(error)
        raise ConnectionFailed(f"{what} raised {type(cause).__name__}") from cause


def _only(error: Exception) -> Exception:
    """Unwrap what a nursery in a user's function has wrapped, so that the retry rule sees what happened."""
    inner = error
    while isinstance(inner, ExceptionGroup):
        held = cast("ExceptionGroup[Exception]", inner).exceptions
        if len(held) != 1:
            return error
        inner = held[0]
    return inner


@final
class _Session:
    """See `trio_wsprim.abc.Session`."""

    __slots__ = ("_is_over", "_link", "_receiving", "attempt", "reconnecting", "unread")

    def __init__(self, link: Link, attempt: int, reconnecting: bool) -> None:
        self._link = link
        self._is_over = False
        self._receiving = OneAtATime("receiving")
        self.unread: deque[Incoming] = deque()
        self.attempt = attempt
        self.reconnecting = reconnecting

    @property
    def subprotocol(self) -> str | None:
        """See `Session`."""
        return self._link.subprotocol

    @property
    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """See `Session`."""
        return self._link.response_headers

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """See `Session`."""
        checked = as_message(message)
        self._check()
        await self._link.send([checked])

    async def receive(self) -> Message:
        """See `Session`."""
        self._check()
        with self._receiving:
            while True:
                while self.unread:
                    item = self.unread.popleft()
                    if not isinstance(item, Pong):
                        return item
                self.unread.extend(await self._link.receive())

    def end(self) -> None:
        """The socket takes over: a session that was kept must not interfere."""
        self._is_over = True

    def _check(self) -> None:
        if self._is_over:
            raise trio.ClosedResourceError("this session ended with its setup()")
