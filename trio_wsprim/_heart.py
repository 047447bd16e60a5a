"""The heartbeat of one connection: `_pulse` decides, the run's clock says when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from trio_wsprim._clock import Alarm, the_clock
from trio_wsprim._errors import HeartbeatTimeout
from trio_wsprim._options import Heartbeat, as_message
from trio_wsprim._pulse import Pulse, Verdict
from trio_wsprim._seam import Link, Outgoing, Ping

# From the socket to the link a byte passes no more tasks than this, TLS and a user's own stream included.
_TURNS: Final = 4
_PAYLOAD: Final = b"heartbeat"


@final
class Heart:
    """Beats on one link, until it finds the peer dead.

    Args:
        heartbeat: When and what.
        link: Whose bytes count.
        send_now: Sends an item ahead of what is buffered, and calls back as it leaves; never waits.
        end: Is told, once, that the peer is dead.
        start: Starts a task, for functions of the user's: the clock must not run them.
    """

    __slots__ = ("_alarm", "_doubts", "_end", "_heartbeat", "_is_stopped", "_link", "_pulse", "_send_now", "_start")

    def __init__(
        self,
        heartbeat: Heartbeat,
        link: Link,
        send_now: Callable[[Outgoing, Callable[[], None]], None],
        end: Callable[[Exception], None],
        start: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._heartbeat = heartbeat
        self._link = link
        self._send_now = send_now
        self._end = end
        self._start = start
        self._pulse = Pulse(heartbeat.interval, heartbeat.wait, trio.current_time())
        self._doubts = 0
        self._is_stopped = False
        _, due = self._judge()
        self._alarm: Alarm | None = the_clock().set_alarm(due, self._ring)

    def stand(self) -> None:
        """Stop the clock: we do not read."""
        self._pulse.stand(trio.current_time(), self._link.heard_at, self._link.moved_at)

    def go(self) -> None:
        """We read again."""
        now = trio.current_time()
        self._pulse.go(now, self._link.moved_at)
        if self._alarm is None and not self._is_stopped:
            self._alarm = the_clock().set_alarm(now, self._ring)

    def stop(self) -> None:
        """Beat no more."""
        self._is_stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> float | None:
        if self._pulse.stands:
            self._alarm = None  # `go` sets another
            return None
        verdict, due = self._judge()
        if verdict is Verdict.DEAD:
            return self._doubt()
        self._doubts = 0
        if verdict is Verdict.BEAT:
            self._beat()
        return due

    def _judge(self) -> tuple[Verdict, float]:
        return self._pulse.judge(trio.current_time(), self._link.heard_at, self._link.moved_at)

    def _doubt(self) -> float | None:
        """Give the reader its turns before a verdict that cannot be taken back.

        After a computation that kept trio waiting, it wakes together with us, and the answer is there to be read.
        """
        if self._doubts < _TURNS:
            self._doubts += 1
            return -1.0  # after everybody's next turn
        self._end(HeartbeatTimeout(self._heartbeat.wait))
        return None

    def _beat(self) -> None:
        message = self._heartbeat.message
        if callable(message):
            self._start(self._beat_by_function)
        else:
            self._send_now(Ping(_PAYLOAD) if message is None else as_message(message), self._note_sent)

    async def _beat_by_function(self) -> None:
        message = self._heartbeat.message
        assert callable(message), "there is no function to ask"
        self._send_now(as_message(message()), self._note_sent)

    def _note_sent(self) -> None:
        self._pulse.sent(trio.current_time())
