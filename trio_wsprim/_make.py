"""The openers: `make_*` live in a nursery that they are given, `create_*` own what they open."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from typing import Any, Final, TypeVar, Unpack, cast

import trio

from trio_wsprim._options import (
    Options,
    ReconnectingOptions,
    RetryRule,
    Source,
    Subprotocols,
    check_class,
    check_type,
    read_settings,
)
from trio_wsprim._signal import Signal
from trio_wsprim._values import Event, ReadyState
from trio_wsprim._websocket import ReconnectingWebSocket, WebSocket, latest_event, owned, start

E = TypeVar("E", bound=Event)
_RULE_NAMES: Final = frozenset(each.name for each in fields(RetryRule))


def make_ws(
    nursery: trio.Nursery,
    url: Source[str],
    subprotocols: Source[Subprotocols] = (),
    **options: Unpack[Options],
) -> WebSocket:
    """Open a connection whose task lives in a nursery of yours; you close it, or the nursery's cancellation does.

    Returns at once, while the connection is still CONNECTING: what is sent meanwhile is buffered.

    Args:
        nursery: Where its one task lives.
        url: `ws:` or `wss:`; or a function that gives it, sync or async, as for subprotocols and headers.
        subprotocols: Those that we speak, the most wanted first.
        options: See `Options`.

    Raises:
        ValueError: If a value is out of range or cannot be sent; nothing has been opened.
        TypeError: If a value is of the wrong type.
        ImportError: If `proxy` is given without the extra that it needs.
    """
    return _start(_plain(url, subprotocols, options), nursery)


def create_ws(
    url: Source[str], subprotocols: Source[Subprotocols] = (), **options: Unpack[Options]
) -> AbstractAsyncContextManager[WebSocket]:
    """Open a connection for the time of an `async with` block.

    Leaving the block closes it: without an error after draining, as `WebSocket.aclose` does; with one without
    draining; cancelled at once. The user's own exception comes out unchanged.

    Args:
        url: As for `make_ws`.
        subprotocols: As for `make_ws`.
        options: See `Options`.

    Raises:
        ValueError: As `make_ws`, at the call.
        TypeError: As `make_ws`, at the call.
        ImportError: As `make_ws`, at the call.
        ConnectionFailed: At the end of the block, if that ended the socket, and no call has raised it yet.
        ConnectionClosed: Likewise, if it was no normal close.
        UndeliveredError: At the end of the block, if messages stay undelivered, unless you called `aclose`.
    """
    return owned(_plain(url, subprotocols, options))


def make_reconnecting_ws(
    nursery: trio.Nursery,
    url: Source[str],
    subprotocols: Source[Subprotocols] = (),
    **options: Unpack[ReconnectingOptions],
) -> ReconnectingWebSocket:
    """Open a connection that dials again when it ends; otherwise as `make_ws`.

    Args:
        nursery: Where its one task lives.
        url: As for `make_ws`; functions are asked anew for every attempt.
        subprotocols: As for `make_ws`.
        options: See `ReconnectingOptions` and `Options`.

    Raises:
        ValueError: As `make_ws`.
        TypeError: As `make_ws`.
        ImportError: As `make_ws`.
    """
    return _start(_reconnecting(url, subprotocols, options), nursery)


def create_reconnecting_ws(
    url: Source[str],
    subprotocols: Source[Subprotocols] = (),
    **options: Unpack[ReconnectingOptions],
) -> AbstractAsyncContextManager[ReconnectingWebSocket]:
    """Open a connection that dials again when it ends, for the time of an `async with` block.

    Args:
        url: As for `make_reconnecting_ws`.
        subprotocols: As for `make_ws`.
        options: See `ReconnectingOptions` and `Options`.

    Raises:
        ValueError: As `make_ws`, at the call.
        TypeError: As `make_ws`, at the call.
        ImportError: As `make_ws`, at the call.
        RetriesExhausted: At the end of the block, if that ended the socket, and no call has raised it yet.
        ConnectionFailed: Likewise, if an attempt failed for good.
        ConnectionClosed: Likewise, after a close that is not to be retried.
        UndeliveredError: As `create_ws`.
    """
    return owned(_reconnecting(url, subprotocols, options))


def create_ws_state(ws: WebSocket) -> Signal[ReadyState]:
    """Give the signal of a socket's ready state: the same as `ws.state`."""
    return ws.state


def create_event_signal(ws: WebSocket, event_class: type[E]) -> Signal[E | None]:
    """Give the signal of the latest event of one class; `None` until one happens.

    Args:
        ws: The socket.
        event_class: One of the event classes, such as `MessageEvent`.

    Raises:
        TypeError: If it is no event class.
    """
    check_class("event_class", event_class, Event)
    return latest_event(ws, event_class)


def _plain(url: Source[str], subprotocols: Source[Subprotocols], options: Options) -> WebSocket:
    return WebSocket(read_settings(url, subprotocols, options))


def _reconnecting(
    url: Source[str], subprotocols: Source[Subprotocols], options: ReconnectingOptions
) -> ReconnectingWebSocket:
    given = cast("dict[str, Any]", options)
    rule = RetryRule(**{name: given[name] for name in given.keys() & _RULE_NAMES})
    rest = {name: value for name, value in given.items() if name not in _RULE_NAMES}
    return ReconnectingWebSocket(read_settings(url, subprotocols, cast("Options", rest)), rule)


W = TypeVar("W", bound=WebSocket)


def _start(ws: W, nursery: trio.Nursery) -> W:
    check_type("nursery", nursery, trio.Nursery)
    start(ws, nursery)
    return ws
