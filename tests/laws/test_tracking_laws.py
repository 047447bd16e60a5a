"""An outbox that tracks: what is proved, what is in doubt, and what goes out again, over many connections."""

from itertools import chain, count, pairwise

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_wsprim._errors import BufferFull, ConnectionClosed, MessageTooBig
from trio_wsprim._outbox import Outbox
from trio_wsprim._values import WHEN_FULL, Buffer, DropEvent, Message

buffers = st.builds(
    Buffer,
    max_messages=st.none() | st.integers(1, 5),
    max_bytes=st.none() | st.integers(6, 20),
    when_full=st.sampled_from(WHEN_FULL),
)
peers_codes = st.sampled_from([None, 1000, 1009])
deeds = st.one_of(
    st.tuples(st.just("put"), st.integers(3, 6)),
    st.tuples(st.just("put"), st.integers(3, 6)),
    st.tuples(st.just("push"), st.integers(3, 6), st.sampled_from([True, False, None])),
    st.tuples(st.just("write"), st.integers(0, 20), st.integers(0, 4)),
    st.tuples(st.just("confirm"), st.integers(0, 4)),
    st.tuples(st.just("reconnect"), st.booleans(), peers_codes, st.booleans()),
)


class Book:
    """A tracking outbox, and a second book of all that became of each message."""

    def __init__(self, buffer: Buffer, resends: bool) -> None:
        self.buffer = buffer
        self.resends = resends
        self.outbox = Outbox(buffer, self._note_drop, tracks=True, resends=resends)
        self.outbox.nudge = lambda: None
        self.names = count(100)
        self.accepted: list[Message] = []
        self.dropped: list[Message] = []
        self.confirmed: list[Message] = []
        self.told: list[Message] = []
        self.connections: list[list[Message]] = [[]]
        self.serials: dict[Message, int] = {}

    def _note_drop(self, event: DropEvent) -> None:
        self.dropped.append(event.message)

    @property
    def open(self) -> list[Message]:
        gone = {*self.confirmed, *self.dropped}
        return [message for message in self.connections[-1] if message not in gone]

    @property
    def left(self) -> list[Message]:
        return [each.message for each in self.outbox.leftovers()]

    def put(self, size: int) -> None:
        message = str(next(self.names)).ljust(size, ".")
        try:
            self.outbox.put_nowait(message, None)
            self.accepted.append(message)
        except (BufferFull, MessageTooBig):
            pass

    def push(self, size: int, is_through: bool | None) -> None:
        """Have a connection take it past the queue, if that is empty: it is out at once, or torn, or not wanted so."""
        message = str(next(self.names)).ljust(size, ".")
        pushed: list[Message] = []

        def push(lone: Message) -> bool | None:
            if is_through is not None:
                pushed.append(lone)
                self.serials[lone] = self.outbox.mark().serial
            return is_through

        self.outbox.push = push
        if self.outbox.put_quick(message, size):
            self.accepted.append(message)
        self.outbox.push = None
        if is_through:
            self.connections[-1] += pushed
        elif pushed:
            self.outbox.settle(0)

    def write(self, max_bytes: int, sent: int) -> None:
        taken = self.outbox.take(max_bytes)
        self.serials.update((entry.message, entry.serial) for entry in taken)
        names = [entry.message for entry in taken]
        self.connections[-1] += names[:sent]
        self.outbox.settle(min(sent, len(taken)))

    def confirm(self, number: int) -> None:
        proved = self.open[:number]
        if proved:
            self.outbox.confirm(self.serials[proved[-1]])
            self.confirmed += proved

    def reconnect(self, is_proved: bool, peers_code: int | None, lasted: bool) -> None:
        doubtful = [] if is_proved else self.open
        if is_proved:
            self.confirmed += self.open
        self.outbox.break_off(ConnectionClosed(1006))
        account = self.outbox.settle_account(is_proved=is_proved, peers_code=peers_code, lasted=lasted)
        assert account.unconfirmed is not None
        assert list(account.unconfirmed) == doubtful
        if not self.resends:
            self.told += account.unconfirmed
        self.connections.append([])

    def check(self) -> None:
        room, limits = self.outbox.room, self.buffer
        held = [message for message in (*self.open, *self.left) if self.resends or message not in self.told]
        assert room.messages == len(held)
        assert room.bytes == sum(map(len, held))
        assert limits.max_messages is None or room.messages <= limits.max_messages
        assert limits.max_bytes is None or room.bytes <= limits.max_bytes
        fates = [self.confirmed, self.dropped, self.told, self.open, [each for each in held if each not in self.open]]
        assert sorted(chain(*fates)) == sorted(self.accepted), "not exactly one fate each"
        in_doubt = {*self.open, *self.told} | ({*chain(*self.connections)} & {*held})
        assert self.outbox.messages_unconfirmed == len(in_doubt)
        assert self.outbox.messages_buffered == len({*held} - in_doubt)

    def check_order(self) -> None:
        for connection in self.connections:
            assert all(str(one) < str(other) for one, other in pairwise(connection)), "out of order"
        if not self.resends:
            handed = list(chain(*self.connections))
            assert len(handed) == len(set(handed)), "handed over twice"


@given(buffer=buffers, resends=st.booleans(), program=st.lists(deeds, max_size=50))
def test_each_message_has_exactly_one_fate_over_any_number_of_connections(
    buffer: Buffer, resends: bool, program: list[tuple[object, ...]]
) -> None:
    async def main() -> None:
        book = Book(buffer, resends)
        for name, *arguments in program:
            getattr(book, str(name))(*arguments)
            book.check()
        book.check_order()

    trio.run(main, clock=MockClock(autojump_threshold=0))
