"""The two buffers, under any program of what a user, a connection and the clock may do to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._errors import BufferFull, MessageTooBig
from trio_wsprim._inbox import Inbox
from trio_wsprim._outbox import Outbox
from trio_wsprim._scopes import Bell
from trio_wsprim._values import WHEN_FULL, Buffer, DropEvent, Message, WhenFull

buffers = st.builds(
    Buffer,
    max_messages=st.none() | st.integers(1, 4),
    max_bytes=st.none() | st.integers(4, 12),
    when_full=st.sampled_from(WHEN_FULL),
)
ttls = st.none() | st.sampled_from([0, 0.005, 1, 3, 10])
sizes = st.integers(3, 14)
deeds = st.one_of(
    st.tuples(st.just("put"), sizes, ttls),
    st.tuples(st.just("put_nowait"), sizes, ttls),
    st.tuples(st.just("put_quick"), sizes),
    st.tuples(st.just("take"), st.integers(0, 20)),
    st.tuples(st.just("settle"), st.integers(0, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 4)),
    st.tuples(st.just("sleep"), st.sampled_from([0.005, 1, 2, 5])),
    st.tuples(st.just("connect"), st.booleans(), st.lists(st.sampled_from([True, False, None]), max_size=4)),
    st.tuples(st.just("break_off")),
)
endings = st.sampled_from(["close", "end", "none"])


def closed() -> BaseException:
    return trio.ClosedResourceError()


class OutboxBook:
    """An outbox, and a second book of all that became of each message."""

    def __init__(self, buffer: Buffer, nursery: trio.Nursery) -> None:
        self.buffer = buffer
        self.nursery = nursery
        self.outbox = Outbox(buffer, self._note_drop)
        self.names = count(100)  # three digits each, padded to the size wanted
        self.calls: list[Message] = []
        self.accepted: list[Message] = []
        self.refused: list[Message] = []
        self.dropped: list[Message] = []
        self.sent: list[Message] = []
        self.taken: list[Message] = []
        self.scopes: dict[Message, trio.CancelScope] = {}
        self.flushers: list[tuple[list[Message], trio.CancelScope]] = []

    def _note_drop(self, event: DropEvent) -> None:
        self.dropped.append(event.message)

    def put(self, size: int, ttl: float | None) -> None:
        message = str(next(self.names)).ljust(size, ".")
        self.calls.append(message)
        self.scopes[message] = trio.CancelScope()
        self.nursery.start_soon(self._put, message, ttl)

    async def _put(self, message: Message, ttl: float | None) -> None:
        with self.scopes[message]:
            try:
                await self.outbox.put(message, ttl)
                self.accepted.append(message)
            except (BufferFull, MessageTooBig, trio.ClosedResourceError):
                self.refused.append(message)
        if self.scopes[message].cancelled_caught:
            self.refused.append(message)

    def put_nowait(self, size: int, ttl: float | None) -> None:
        message = str(next(self.names)).ljust(size, ".")
        self.calls.append(message)
        try:
            self.outbox.put_nowait(message, ttl)
            self.accepted.append(message)
        except (BufferFull, MessageTooBig, trio.ClosedResourceError):
            self.refused.append(message)

    def put_quick(self, size: int) -> None:
        message = str(next(self.names)).ljust(size, ".")
        if self.outbox.put_quick(message, size):
            self.calls.append(message)
            self.accepted.append(message)

    def take(self, max_bytes: int) -> None:
        if not self.taken:
            self.taken = [entry.message for entry in self.outbox.take(max_bytes)]

    def settle(self, number: int) -> None:
        self.sent += self.taken[:number]
        self.outbox.settle(min(number, len(self.taken)))
        self.taken = []

    def cancel(self, number: int) -> None:
        waiting = [message for message in self.calls if message not in self.accepted + self.refused]
        for message in waiting[number : number + 1]:
            if message in self.scopes:
                self.scopes[message].cancel()

    def connect(self, is_eager: bool, pushes: list[bool | None]) -> None:
        """Be a connection.

        One that sends what comes at once, or one that is told of it and sends in its own time. And for a while one
        that takes a lone message past the queue: it is out then, or under way, or not wanted so.
        """
        self.outbox.nudge = self.send_all if is_eager else self.none
        self.outbox.push = partial(self._push, pushes)

    def _push(self, pushes: list[bool | None], message: Message) -> bool | None:
        is_through = pushes.pop() if pushes and not self.taken else None
        if is_through:
            self.sent.append(message)
        elif is_through is not None:
            self.taken = [message]
            self.note_batch()
        return is_through

    def send_all(self) -> None:
        if not self.taken:
            self.take(20)
            self.note_batch()
            self.settle(len(self.taken))

    def break_off(self) -> None:
        self.outbox.nudge = self.outbox.push = None

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def close(self) -> None:
        self.outbox.close(closed)

    def end(self) -> None:
        self.outbox.end(closed)

    def none(self) -> None:
        pass

    @property
    def left(self) -> list[Message]:
        return [each.message for each in self.outbox.leftovers()]

    def check_bounds(self) -> None:
        room, limits = self.outbox.room, self.buffer
        assert room.messages == len(self.left)
        assert room.bytes == sum(map(len, self.left))
        messages, size = room.messages, room.bytes
        if limits.when_full == "drop_oldest":  # what is under way is not dropped, so there may be a batch more
            messages -= len(self.most_taken)
            size -= sum(map(len, self.most_taken))
        assert limits.max_messages is None or messages <= limits.max_messages
        assert limits.max_bytes is None or size <= limits.max_bytes

    most_taken: list[Message] = []  # noqa: RUF012 - replaced, never changed

    def note_batch(self) -> None:
        """Remember the batch that may exceed the bounds: under way, or come back and not yet dropped."""
        if self.taken:
            self.most_taken = self.taken

    def check_fates(self) -> None:
        fates = Counter(self.sent + self.left)
        fates.update(set(self.dropped))
        assert len(self.dropped) == len(set(self.dropped)), "dropped twice"
        assert fates == Counter(self.accepted), "not exactly one fate each"
        assert sorted(self.accepted + self.refused) == sorted(self.calls)

    def check_order(self) -> None:
        gone = self.sent + self.left
        assert gone == sorted(gone), "out of order"
        assert self.outbox.messages_sent == len(self.sent)
        assert self.outbox.bytes_sent == sum(map(len, self.sent))


def run(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


async def play(buffer: Buffer, program: list[tuple[object, ...]], ending: str) -> None:
    async with trio.open_nursery() as nursery:
        book = OutboxBook(buffer, nursery)
        for name, *arguments in [*program, (ending,)]:
            result = getattr(book, str(name))(*arguments)
            if result is not None:
                await result
            book.note_batch()
            book.check_bounds()
            await wait_all_tasks_blocked()
            book.check_bounds()
        book.settle(0)
        await wait_all_tasks_blocked()
        for scope in book.scopes.values():
            scope.cancel()
        await wait_all_tasks_blocked()
        book.check_fates()
        book.check_order()
        nursery.cancel_scope.cancel()


@given(buffer=buffers, program=st.lists(deeds, max_size=40), ending=endings)
def test_each_accepted_message_is_sent_or_dropped_and_reported_or_left_over_within_the_bounds(
    buffer: Buffer, program: list[tuple[object, ...]], ending: str
) -> None:
    run(partial(play, buffer, program, ending))


@given(
    number=st.integers(0, 300), ttl=st.sampled_from([0.5, 10, 3600]), takes=st.lists(st.integers(0, 4), max_size=200)
)
def test_the_list_of_deadlines_stays_in_proportion_to_what_waits(number: int, ttl: float, takes: list[int]) -> None:
    async def main() -> None:
        outbox = Outbox(Buffer(None, None), lambda event: None)
        for _ in range(number):
            outbox.put_nowait("x", ttl)
        for each in takes:
            outbox.put_nowait("x", ttl)
            outbox.take(4)
            outbox.settle(each)
            assert len(outbox._expiry._heap) <= 2 * max(number, outbox.room.messages) + 66

    run(main)


Receive = Callable[[], Awaitable[list[Message]]]
inbox_deeds = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 6)),
    st.tuples(st.just("receive")),
    st.tuples(st.just("receive_many"), st.none() | st.integers(1, 5)),
    st.tuples(st.just("receive_nowait")),
    st.tuples(st.just("await_room"), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
)


class InboxBook:
    """An inbox, and a second book of what became of each message."""

    def __init__(self, buffer: Buffer, nursery: trio.Nursery) -> None:
        self.buffer = buffer
        self.nursery = nursery
        self.inbox = Inbox(buffer, lambda event: self.dropped.append(event.message), Bell())
        self.names = count(100)
        self.came: list[Message] = []
        self.dropped: list[Message] = []
        self.received: list[Message] = []
        self.waiting: list[trio.CancelScope] = []

    def put(self, number: int) -> None:
        """Bring in what one read brings, if reading goes on."""
        if self.inbox.has_room():
            batch: list[Message] = [str(next(self.names)) for _ in range(number)]
            self.came += batch
            self.inbox.put(batch, 3 * number)

    def receive(self) -> None:
        async def receive() -> list[Message]:
            return [await self.inbox.receive()]

        self._start(receive)

    def receive_many(self, max_messages: int | None) -> None:
        self._start(partial(self.inbox.receive_many, max_messages))

    def _start(self, receive: Receive) -> None:
        self.waiting.append(trio.CancelScope())
        self.nursery.start_soon(self._receive, receive, self.waiting[-1])

    async def _receive(self, receive: Receive, scope: trio.CancelScope) -> None:
        with scope, suppress(trio.EndOfChannel):
            self.received += await receive()
        self.waiting.remove(scope)

    def receive_nowait(self) -> None:
        with suppress(trio.WouldBlock):
            self.received.append(self.inbox.receive_nowait())

    def await_room(self, is_awaited: bool) -> None:
        self.inbox.await_room(is_awaited)

    def cancel(self, number: int) -> None:
        for scope in self.waiting[number : number + 1]:
            scope.cancel()

    @property
    def held(self) -> int:
        """How many it must have."""
        return len(self.came) - len(self.dropped) - len(self.received)

    def check(self, most_read: int) -> None:
        held, limits = self.held, self.buffer
        assert len(self.inbox.queue) == held
        more = most_read if limits.when_full == "wait" else 0
        assert limits.max_messages is None or held <= limits.max_messages + more
        assert limits.max_bytes is None or 3 * held <= limits.max_bytes + 3 * more
        is_full = limits.max_messages is not None and held >= limits.max_messages
        is_full |= limits.max_bytes is not None and 3 * held >= limits.max_bytes
        assert self.inbox.has_room() == (limits.when_full != "wait" or not is_full)


async def receive_all(buffer: Buffer, program: list[tuple[object, ...]], settles: list[bool]) -> None:
    async with trio.open_nursery() as nursery:
        book = InboxBook(buffer, nursery)
        for (name, *arguments), settle in zip(program, settles, strict=False):
            getattr(book, str(name))(*arguments)
            book.check(most_read=6)
            if settle:  # else both happen in one turn of the scheduler
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert not (book.waiting and book.held), "somebody waits for what is there"
        book.inbox.end(trio.EndOfChannel)
        while book.held:
            book.received.append(book.inbox.receive_nowait())
        await wait_all_tasks_blocked()
        assert book.waiting == []
        assert sorted(book.received + book.dropped) == book.came


inbox_buffers = st.builds(
    Buffer,
    max_messages=st.none() | st.integers(1, 4),
    max_bytes=st.none() | st.integers(3, 12),
    when_full=st.sampled_from(["wait", "drop_oldest", "drop_newest"]),
)


@given(buffer=inbox_buffers, program=st.lists(inbox_deeds, max_size=40), settles=st.lists(st.booleans(), min_size=40))
def test_each_message_that_comes_in_goes_to_exactly_one_receiver_or_is_dropped_and_reported(
    buffer: Buffer, program: list[tuple[object, ...]], settles: list[bool]
) -> None:
    run(partial(receive_all, buffer, program, settles))


@given(
    buffer=inbox_buffers,
    sizes=st.lists(st.integers(0, 6), max_size=30),
    reads=st.lists(st.integers(1, 4), max_size=30),
    when_full=st.sampled_from(["drop_oldest", "drop_newest"]),
)
def test_what_is_received_is_in_order_under_every_policy(
    buffer: Buffer, sizes: list[int], reads: list[int], when_full: WhenFull
) -> None:
    async def main() -> None:
        inbox = Inbox(buffer, lambda event: None, Bell())
        received: list[Message] = []
        for number, (size, read) in enumerate(zip(sizes, reads, strict=False)):
            batch: list[Message] = [f"{100 + number}{each}" for each in range(size)]
            inbox.put(batch, 4 * size)
            if len(inbox.queue) > read:
                received += await inbox.receive_many(read)
        while inbox.queue:
            received.append(await inbox.receive())
        assert received == sorted(received)

    run(main)
