"""The primitive that gives a socket a heartbeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trio_wsprim._options import Heartbeat, as_message, check_type
from trio_wsprim._values import Message
from trio_wsprim._websocket import WebSocket, start_heartbeat

W = TypeVar("W", bound=WebSocket)


def make_heartbeat_ws(
    ws: W,
    *,
    message: Message | Callable[[], Message] | None = "ping",
    interval: float = 1.0,
    wait: float = 1.5,
    reply: Message | Callable[[Message], object] | None = None,
) -> W:
    """Give a socket a heartbeat: silence, a message, and silence again end the connection.

    It follows every reconnection and ends with the socket. A second one replaces the first. What a function of
    yours raises ends the socket, and comes out of its calls as it is.

    Args:
        ws: The socket, plain or reconnecting.
        message: What to send, ahead of what is buffered; a function is asked each time; `None` sends a ping frame,
            which every server answers.
        interval: Seconds in which nothing came in, before the message is sent.
        wait: Seconds in which nothing comes in after it, until the connection ends with `HeartbeatTimeout`. Any
            byte from the peer counts. While we do not read, since an inbox is full, the clock stands.
        reply: Answers that nobody is shown: a message, or a predicate.

    Returns:
        The same socket.

    Raises:
        ValueError: If `interval` or `wait` is not positive and finite.
        TypeError: If an argument is of the wrong type.
        UnicodeEncodeError: If `message` is text with a lone surrogate.
    """
    check_type("ws", ws, WebSocket)
    if isinstance(message, str):
        as_message(message)  # a lone surrogate would not come out before the first beat
    heartbeat = Heartbeat(message=message, interval=interval, wait=wait, reply=reply)
    start_heartbeat(ws, heartbeat)
    return ws
