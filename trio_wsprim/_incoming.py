"""Where a received message goes: the inbox, the `message` signal, and each subscriber's own copy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Literal, final

import trio

from trio_wsprim._channels import DroppingChannel, Feed, WaitingChannel
from trio_wsprim._events_hub import EventsHub
from trio_wsprim._inbox import Inbox, Reader
from trio_wsprim._room import batch_size
from trio_wsprim._scopes import Bell
from trio_wsprim._signal import Variable
from trio_wsprim._values import Buffer, DropEvent, Message

Reply = Message | Callable[[Message], object]


@final
class Incoming:
    """Hands each message to all who want it, and tells when to stop reading.

    Args:
        buffer: Of the inbox; `None` for a socket without one.
        hub: Is told each message and each drop.
        report: Is told each drop.
    """

    __slots__ = (
        "_is_closed",
        "_is_ended",
        "_freed",
        "_hub",
        "_feeds",
        "bytes_received",
        "inbox",
        "message",
        "messages_received",
        "reply",
    )

    def __init__(self, buffer: Buffer | None, hub: EventsHub, report: Callable[[DropEvent], None]) -> None:
        self._hub = hub
        self._is_closed = False
        self._is_ended = False
        self._freed = Bell()
        self._feeds: list[Feed[Message]] = []
        self.inbox = None if buffer is None else Inbox(buffer, report, self._freed)
        self.message: Variable[Message | None] = Variable(None, self._note_listener)
        # Answers to a heartbeat, which nobody is shown.
        self.reply: Reply | None = None
        self.messages_received = 0
        self.bytes_received = 0

    def deliver(self, messages: Sequence[Message]) -> None:
        """Give messages to everybody, all that came together; never waits.

        Raises:
            Exception: What a user's `reply` predicate raised; those before it have been delivered.
        """
        if self._is_closed:
            return
        if self.reply is None:
            self._deliver(messages)
            return
        shown: list[Message] = []
        try:
            shown.extend(message for message in messages if not self._is_reply(message))
        finally:
            self._deliver(shown)

    def _deliver(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        size = batch_size(messages)
        self.messages_received += len(messages)
        self.bytes_received += size
        self.message.set_each(messages)
        if self._hub.is_watched:
            self._hub.emit_messages(messages)
        for feed in self._feeds:
            for message in messages:
                feed.offer(message)
        if self.inbox is not None:
            self.inbox.put(messages, size)

    def _is_reply(self, message: Message) -> bool:
        return bool(self.reply(message)) if callable(self.reply) else message == self.reply

    def lend(self, reader: Reader | None) -> None:
        """Let receivers read for themselves, from now on; or no more."""
        if self.inbox is not None:
            self.inbox.reader = reader

    @property
    def has_receivers(self) -> bool:
        """Whether somebody waits in `receive` to be woken."""
        return self.inbox is not None and self.inbox.has_receivers

    @property
    def has_listeners(self) -> bool:
        """Whether others wait for messages: subscribers, or somebody for the `message` signal to change."""
        return bool(self._feeds) or self.message.is_awaited

    def _note_listener(self) -> None:
        if self.inbox is not None and self.inbox.reader is not None:
            self.inbox.reader.go_on()

    def has_room(self) -> bool:
        """Whether everybody is ready for more; when we have hung up, everything is discarded at once."""
        if self._is_closed:
            return True
        if self._feeds and any(feed.is_behind for feed in self._feeds):
            return False
        return self.inbox is None or self.inbox.has_room()

    async def wait_room(self) -> None:
        """Wait until everybody is ready for more. Cancellation: atomic."""
        if self.inbox is not None:
            self.inbox.await_room(True)
        try:
            while not self.has_room():
                await self._freed.wait()
        finally:
            if self.inbox is not None:
                self.inbox.await_room(False)

    @asynccontextmanager
    async def subscribe(
        self, max_buffer_size: float, when_full: Literal["wait", "drop_oldest", "drop_newest"]
    ) -> AsyncGenerator[trio.MemoryReceiveChannel[Message]]:
        """Open a channel of all messages from now on, until the block or the socket ends."""
        if when_full == "wait":
            waiting = WaitingChannel[Message](max_buffer_size, self._freed)
            with self._subscribed(waiting):
                async with waiting.open() as receiver:
                    yield receiver
        else:
            dropping = DroppingChannel[Message](max_buffer_size, when_full)
            with self._subscribed(dropping), closing(dropping):
                yield dropping.receiver

    @contextmanager
    def _subscribed(self, feed: Feed[Message]) -> Generator[None]:
        self._feeds.append(feed)
        self._note_listener()
        if self._is_ended:
            feed.end()
        try:
            yield
        finally:
            self._feeds.remove(feed)

    def end(self, error: Callable[[], BaseException]) -> None:
        """Nothing more will come; what is there can still be received."""
        self._is_ended = True
        if self.inbox is not None:
            self.inbox.end(error)
        for feed in self._feeds:
            feed.end()
        self.message.end()

    def close(self, error: Callable[[], BaseException]) -> None:
        """We hang up: what is unread is gone, and what still comes is discarded."""
        self._is_closed = True
        if self.inbox is not None:
            self.inbox.close(error)
        self._freed.ring()
