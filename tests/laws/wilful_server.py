"""The server of a world: it has its own will, may break any rule, and keeps a book."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeAlias

import trio

from trio_wsprim.testing import MemoryNetwork, Peer, PeerClosed

from .programs import BEAT

Names: TypeAlias = list[str]

MAX_MESSAGE_BYTES: Final = 1000
# What has no name of its own, and is no message of the user's.
HELLO, WELCOME = "hello", "welcome"
# What the server meets when the client goes away, or its own tasks send and half-close at once.
PARTINGS: Final = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    trio.BusyResourceError,
    PeerClosed,
)


@dataclass
class Connection:
    """What the server knows of one connection.

    Attributes:
        told: What it has begun to send, in order.
        heard: What it has received whole, in order.
        is_cut: Whether it has ended the connection so that what was under way to it is lost.
    """

    number: int
    peer: Peer
    told: Names = field(default_factory=list)
    heard: Names = field(default_factory=list)
    greetings: Names = field(default_factory=list)
    is_open: bool = False
    is_cut: bool = False


@dataclass
class WilfulServer:
    """The other side of every connection.

    Args:
        note: Is told what happens.

    Attributes:
        connections: Those whose handshake is done, in order.
        thawed: Set while it reads.
        is_mute: Whether it answers nothing.
    """

    nursery: trio.Nursery
    network: MemoryNetwork
    note: Callable[[str], None]
    connections: list[Connection] = field(default_factory=list)
    handshake_faults: deque[str] = field(default_factory=deque)
    thawed: trio.Event = field(default_factory=trio.Event)
    is_mute: bool = False

    def __post_init__(self) -> None:
        self.thawed.set()

    async def serve(self) -> None:
        for number in count(1):
            connection = Connection(number, await self.network.accept())
            self.nursery.start_soon(self.greet, connection)

    async def greet(self, connection: Connection) -> None:
        peer = connection.peer
        peer.answer_pings = not self.is_mute
        with suppress(*PARTINGS):
            await self.thawed.wait()
            fault = self.handshake_faults.popleft() if self.handshake_faults else ""
            match fault:
                case "":
                    await peer.accept()
                    self.connections.append(connection)
                    connection.is_open = True
                    self.note(f"the server has connection {connection.number}")
                    await self.listen(connection)
                case "503":
                    await peer.reject(503, [("Retry-After", "1")])
                case "404":
                    await peer.reject(404)
                case "garbage":
                    await peer.send_raw(b"SSH-2.0-OpenSSH_9.6p1\r\n")
                case "silence":
                    await peer.run_silent()
                case _:
                    peer.drop()

    async def listen(self, connection: Connection) -> None:
        peer = connection.peer
        try:
            while True:
                await self.thawed.wait()
                said = str(await peer.receive())
                if said in {HELLO, BEAT}:
                    connection.greetings.append(said)
                    if not self.is_mute:
                        self.nursery.start_soon(self.answer, connection, said)
                else:
                    connection.heard.append(said)
        finally:
            connection.is_open = False

    async def answer(self, connection: Connection, said: str) -> None:
        if said == HELLO:
            await self.tell(connection, WELCOME)
        else:
            with suppress(*PARTINGS):
                await connection.peer.send(BEAT)

    async def tell(self, connection: Connection, word: str = "", size: int = 0) -> None:
        name = f"p{connection.number:02}.{len(connection.told):03}{word}".ljust(size, ".")
        connection.told.append(name)
        with suppress(*PARTINGS):
            await connection.peer.send(name)

    @property
    def present(self) -> Connection | None:
        """The connection that the server takes for alive."""
        return next((each for each in reversed(self.connections) if each.is_open), None)

    # ------------------------------------------------------------------------------------------------ deeds

    def do_peer_sends(self, number: int, size: int) -> None:
        if self.present is not None:
            for _ in range(number):
                self.nursery.start_soon(self.tell, self.present, "", size)

    def do_freeze(self, freezes: bool) -> None:
        if not freezes:
            self.thawed.set()
        elif self.thawed.is_set():
            self.thawed = trio.Event()

    def do_mute(self, is_mute: bool) -> None:
        self.is_mute = is_mute
        for each in self.connections:
            each.peer.answer_pings = not is_mute

    def do_kill(self, how: str) -> None:
        if self.present is None:
            return
        if how == "half-close":
            self.nursery.start_soon(self.half_close, self.present)
            return
        self.present.is_cut = True
        self.present.peer.reset() if how == "reset" else self.present.peer.drop()
        self.present.is_open = False

    async def half_close(self, connection: Connection) -> None:
        with suppress(*PARTINGS):
            await connection.peer.half_close()

    def do_peer_closes(self, code: int | None, is_polite: bool) -> None:
        """Begin a close; an impolite one reads no more, which must prove nothing."""
        if self.present is not None:
            self.nursery.start_soon(self.close_peer, self.present, code, is_polite)

    async def close_peer(self, connection: Connection, code: int | None, is_polite: bool) -> None:
        peer = connection.peer
        if not is_polite:
            code = 1012  # of another code than ours: the same could not be told from an answer
            peer.answer_close = False
        with suppress(*PARTINGS):
            await peer.send_close(code)
            if not is_polite:
                connection.is_cut = True
                peer.drop()

    def do_peer_breaks(self, how: str) -> None:
        if self.present is not None:
            self.nursery.start_soon(self.break_rules, self.present.peer, how)

    async def break_rules(self, peer: Peer, how: str) -> None:
        with suppress(*PARTINGS):
            match how:
                case "opcode":
                    await peer.send_frame(7, b"")
                case "mask":
                    await peer.send_frame(1, b"masked", masked=True)
                case "UTF-8":
                    await peer.send_frame(1, b"\xff")
                case _:
                    await peer.send(b"x" * (MAX_MESSAGE_BYTES + 1))

    def do_handshake_fails(self, how: str) -> None:
        self.handshake_faults.append(how)
