"""Who reads: the task that waits for a message, or else one of ours.

A message that one task reads and another is woken for costs a second pass of the scheduler, which is as much as all the
rest. So on a direct link whoever is in `receive` reads for himself. While nobody is, a task of ours does, so that
pings are answered, pongs are counted and the end is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from trio_wsprim._clock import Alarm, the_clock
from trio_wsprim._incoming import Incoming as IncomingMessages
from trio_wsprim._scopes import Bell
from trio_wsprim._seam import Incoming, Link

# Seconds for which our task leaves the reading to a user who reads for himself, from one `receive` to the next. Whoever
# comes to wait for something else meanwhile calls `go_on`; those who only watch events get them so much later.
_GRACE: Final = 0.02


@final
class Reading:
    """The reading side of one life.

    Args:
        link: Nobody else may read from it.
        incoming: Says when to stop reading.
        deliver: Is given what came in.
        stand: Is told when reading stops, since somebody has not read what there is, and when it goes on.
        expects: Tells whether somebody waits for a pong.

    Attributes:
        is_behind: Whether it has stopped so.
    """

    __slots__ = (
        "_alarm",
        "_bell",
        "_deliver",
        "_expects",
        "_found",
        "_incoming",
        "_is_expecting",
        "_is_lent",
        "_is_resting",
        "_is_stopped",
        "_link",
        "_loans",
        "_loans_seen",
        "_stand",
        "is_behind",
    )

    def __init__(
        self,
        link: Link,
        incoming: IncomingMessages,
        deliver: Callable[[Sequence[Incoming]], None],
        stand: Callable[[bool], None],
        expects: Callable[[], bool],
    ) -> None:
        self._link = link
        self._incoming = incoming
        self._deliver = deliver
        self._stand = stand
        self._expects = expects
        self._bell = Bell()
        self._is_lent = False
        # Whether somebody has come to wait, so that our task reads when the loan is over.
        self._is_expecting = False
        # How often it was lent, and how often when we last looked.
        self._loans = 0
        self._loans_seen = 0
        self._is_resting = False
        self._alarm: Alarm | None = None
        # What a user's task has found that ends the connection, for ours to raise.
        self._found: Exception | None = None
        self.is_behind = False

    # -------------------------------------------------------------------------------- the task

    async def run(self) -> None:
        """Read while nobody else does.

        Raises:
            ConnectionClosed: When the link has ended, whoever has found that out.
            Exception: What a user's function raised, likewise.

        Cancellation: atomic. Nothing is lost.
        """
        try:
            while True:
                await self._wait_turn()
                await self._wait_room()
                batch = await self._link.receive()
                had_receivers = self._incoming.has_receivers
                self._deliver(batch)
                if had_receivers and self._link.is_direct and not self._is_needed():
                    self._rest()
        finally:
            self.stop()

    async def _wait_turn(self) -> None:
        while self._is_resting or self._is_lent or self._found is not None:
            if self._found is not None:
                raise self._found
            await self._bell.wait()

    async def _wait_room(self) -> None:
        """Stop reading while somebody is behind, so that TCP pushes back; that is not the peer's silence."""
        if self._incoming.has_room():
            return
        self.is_behind = True
        self._stand(True)
        await self._incoming.wait_room()
        self.is_behind = False
        self._stand(False)

    def _is_needed(self) -> bool:
        """Whether somebody waits for what only our task will read."""
        return self._incoming.has_receivers or self._incoming.has_listeners or self._expects()

    def _rest(self) -> None:
        """Leave the reading to the user, who has just been woken, until we see that he does not."""
        self._is_resting = True
        self._loans_seen = self._loans
        if self._alarm is None:
            self._alarm = the_clock().set_alarm(trio.current_time() + _GRACE, self._look)

    def _look(self) -> float | None:
        """See whether the user reads. Asked now and then, since to be told after each message is what we avoid."""
        if self._loans != self._loans_seen:
            self._loans_seen = self._loans
            return trio.current_time() + _GRACE
        self._alarm = None
        if not self._is_lent:
            self.go_on()
        return None

    def go_on(self) -> None:
        """Somebody waits who does not read for himself: read, if nobody does, and as soon as nobody does."""
        if self._is_lent:
            self._is_expecting = True
        elif self._is_resting:
            self._is_resting = False
            self._bell.ring()

    def reclaim(self) -> None:
        """We close: a user who reads is to be told at once, and our task reads what the peer says to that."""
        if self._is_lent:
            self._link.interrupt()
        self.go_on()

    def stop(self) -> None:
        """Nobody reads any more."""
        self._is_resting = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -------------------------------------------------------------------------------- a user's task

    @property
    def is_free(self) -> bool:
        """Whether a task of the user's may read: nobody does, and everybody is ready for more."""
        return self._is_resting and not self._is_lent and self._found is None and self._incoming.has_room()

    async def read_here(self) -> None:
        """Read once, in the task that calls, if `is_free`; what came in has been delivered then, if anything did.

        Cancellation: atomic. Nothing is lost.
        """
        self._is_lent = True
        self._loans += 1
        try:
            self._deliver(await self._link.receive())
        except trio.ClosedResourceError:
            pass  # we close, and our task knows
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything; our task knows what to do
            self._found = error
        finally:
            self._give_back()

    def _give_back(self) -> None:
        self._is_lent = False
        if self._found is not None or self._is_expecting or self._is_needed():
            self._is_resting = self._is_expecting = False
            self._bell.ring()
        elif self._is_resting and self._alarm is None:
            self._rest()
