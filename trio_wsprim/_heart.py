"""The heartbeat of one connection: `_pulse` decides, this waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from trio_wsprim._errors import HeartbeatTimeout
from trio_wsprim._options import Heartbeat, as_message
from trio_wsprim._pulse import Pulse, Verdict
from trio_wsprim._scopes import Bell
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
    """

    __slots__ = ("_goes", "_heartbeat", "_link", "_pulse", "_send_now", "scope")

    def __init__(
        self,
        heartbeat: Heartbeat,
        link: Link,
        send_now: Callable[[Outgoing, Callable[[], None]], None],
    ) -> None:
        self._heartbeat = heartbeat
        self._link = link
        self._send_now = send_now
        self._pulse = Pulse(heartbeat.interval, heartbeat.wait, trio.current_time())
        self._goes = Bell()
        self.scope = trio.CancelScope()

    def stand(self) -> None:
        """Stop the clock: we do not read."""
        self._pulse.stand(trio.current_time(), self._link.heard_at, self._link.moved_at)

    def go(self) -> None:
        """We read again."""
        self._pulse.go(trio.current_time(), self._link.moved_at)
        self._goes.ring()

    async def run(self) -> None:
        """Beat until `scope` is cancelled.

        Raises:
            HeartbeatTimeout: The peer is dead.
            Exception: What a user's function raised.
        """
        with self.scope:
            while True:
                if self._pulse.stands:
                    await self._goes.wait()
                    continue
                verdict, due = self._judge()
                if verdict is Verdict.DEAD:
                    verdict, due = await self._judge_again()
                if verdict is Verdict.DEAD:
                    raise HeartbeatTimeout(self._heartbeat.wait)
                if verdict is Verdict.BEAT:
                    self._send_now(self._message(), self._note_sent)
                await trio.sleep_until(due)

    def _judge(self) -> tuple[Verdict, float]:
        return self._pulse.judge(trio.current_time(), self._link.heard_at, self._link.moved_at)

    async def _judge_again(self) -> tuple[Verdict, float]:
        """Give the reader its turns before a verdict that cannot be taken back.

        After a computation that kept trio waiting, it wakes together with us, and the answer is there to be read.
        """
        for _ in range(_TURNS):
            await trio.lowlevel.checkpoint()
        return self._judge()

    def _message(self) -> Outgoing:
        message = self._heartbeat.message
        if callable(message):
            message = message()
        return Ping(_PAYLOAD) if message is None else as_message(message)

    def _note_sent(self) -> None:
        self._pulse.sent(trio.current_time())
