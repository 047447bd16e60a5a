"""The load: many clients in one loop over bare sockets, the same for every server, and faster than any of them.

No library of the comparison is in here. Frames are made beforehand; what comes back is counted in bytes, which is
enough, since the first of each is looked at, and a server that sent anything else would throw the count out.
"""

from __future__ import annotations

import gc
import json
import random
import select
import socket
import struct
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, final

from benchmarks._scale_words import BEAT, Scenario
from benchmarks._speed_crowd import AT_A_TIME
from benchmarks._speed_words import Figures

_HOST: Final = "127.0.0.1"
# Seconds after which whatever is waited for does not come.
PATIENCE: Final = 60.0
_READ: Final = 256 * 1024
_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
# Clients that come and go before the others: what is made once, and not for each, is there then.
_SCOUTS: Final = 5
# Intervals of beats before any are measured: at first, all beat at the times at which they were opened.
_SETTLE: Final = 1.5
# The least beats in an interval that are a heartbeat. A server that waits for one answer before its next beat is due
# later has less than one in each; one that is too busy to beat is not idle.
_LEAST_BEATS: Final = 0.4
_BROADCASTS: Final = 20
_ROUND_TRIPS_FIRST: Final = 20


class LoadFailed(Exception):
    """A server did not do what it should."""


def masked(first: int, body: bytes, mask: bytes) -> bytes:
    """Make a frame of a client."""
    return bytes([first]) + length_of(body, 0x80) + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(body))


def unmasked(first: int, body: bytes) -> bytes:
    """Make a frame of a server."""
    return bytes([first]) + length_of(body, 0) + body


def length_of(body: bytes, bit: int) -> bytes:
    if len(body) <= 125:
        return bytes([bit | len(body)])
    return struct.pack("!BH", bit | 126, len(body)) if len(body) < 2**16 else struct.pack("!BQ", bit | 127, len(body))


@final
class Member:
    """One client.

    Args:
        path: Where it goes.
        rng: For its masks.
    """

    __slots__ = ("_rest", "beats", "mask", "sock")

    def __init__(self, port: int, path: str, rng: random.Random) -> None:
        self.sock = socket.create_connection((_HOST, port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.mask = rng.randbytes(4)
        self.beats = 0
        self._rest = b""
        self.sock.sendall(
            b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % path.encode()
        )

    def upgrade(self) -> None:
        """Read the answer to the handshake; what is waited for from then on is waited for with `epoll`."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = self._receive()
            head += part
        head, _, self._rest = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise LoadFailed(f"no upgrade: {head.splitlines()[0].decode()}")
        self.sock.setblocking(False)
        # A first beat may have come with the answer, and a server may wait for its answer before the next one.
        if self._take(b""):
            raise LoadFailed("a message that nobody asked for")

    def _receive(self) -> bytes:
        try:
            data = self.sock.recv(_READ)
        except OSError as error:
            raise LoadFailed(f"the connection ended: {error}") from error
        if not data:
            raise LoadFailed("the server hung up")
        return data

    def send(self, body: bytes, first: int = _TEXT) -> None:
        self.sock.sendall(masked(first, body, self.mask))

    def read(self) -> Sequence[bytes]:
        """Take the messages that are there, none longer than a page, and answer beats."""
        return self._take(self._receive())

    def _take(self, data: bytes) -> Sequence[bytes]:
        data = self._rest + data
        messages: list[bytes] = []
        while (frame := _split(data)) is not None:
            first, body, data = frame
            if first == _PING:
                self.beats += 1
                self.send(body, _PONG)
            elif first == _TEXT:
                messages.append(body)
            elif first != _PONG:
                raise LoadFailed(f"a frame of the kind {first:#x}")
        self._rest = data
        return messages


def _split(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Take the first frame of a server off; `None` if it is not whole."""
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    if data[1] > 125:
        raise LoadFailed(f"a frame with the length {data[1]:#x}")
    end = 2 + data[1]
    return data[0], data[2:end], data[end:]


@final
class Crowd:
    """All clients of one server.

    Args:
        port: Of the server.
        seed: Of the masks.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._rng = random.Random(seed)
        self._members: dict[int, Member] = {}
        self._poll = select.epoll()
        self._control = self._call("/control")

    def open(self) -> None:
        """Be ready to ask the server for things."""
        self._greet(self._control)

    def close(self) -> None:
        """Hang up on the server, which is about to end anyway."""
        for member in self._members.values():
            member.sock.close()
        self._poll.close()

    # ------------------------------------------------------------------------ coming and going

    def join(self, path: str, count: int) -> Sequence[Member]:
        """Connect so many, `AT_A_TIME`, answering the beats of those that are there."""
        joined: list[Member] = []
        while len(joined) < count:
            group = [self._call(path) for _ in range(min(AT_A_TIME, count - len(joined)))]
            for member in group:
                self._greet(member)
            joined += group
            self._read_all(0.0)
        return joined

    def _call(self, path: str) -> Member:
        member = Member(self._port, path, self._rng)
        self._members[member.sock.fileno()] = member
        return member

    def _greet(self, member: Member) -> None:
        member.upgrade()
        self._poll.register(member.sock, select.EPOLLIN)

    def part(self, members: Sequence[Member]) -> None:
        """Close some as it should be, and wait until the server has done so too."""
        for member in members:
            del self._members[member.sock.fileno()]
            self._poll.unregister(member.sock)
            member.send(b"\x03\xe8", _CLOSE)
        for member in members:
            member.sock.settimeout(PATIENCE)
            # A server that has nothing more to say may as well reset.
            with suppress(ConnectionResetError):
                while member.sock.recv(_READ):
                    pass
            member.sock.close()

    # ------------------------------------------------------------------------ asking

    def ask(self, command: str) -> dict[str, Any]:
        """Have the server do something, and wait for its answer."""
        self._control.send(command.encode())
        for _ in _until(PATIENCE):
            answers = [one for member, one in self._read_all(0.1) if member is self._control]
            if answers:
                answer: dict[str, Any] = json.loads(answers[0])
                return answer
        raise LoadFailed(f"no answer to {command!r}")

    def _fill_room(self, count: int) -> Sequence[Member]:
        """Have so many in the room. A server answers the handshake before its handler has run."""
        members = self.join("/room", count)
        for _ in _until(PATIENCE):
            if self.ask("count")["clients"] == count:
                return members
        raise LoadFailed(f"not all of {count} clients are in the room")

    def _read_all(self, timeout: float) -> Sequence[tuple[Member, bytes]]:
        """Read whatever is there, or comes in time; answer beats."""
        found: list[tuple[Member, bytes]] = []
        for number, _ in self._poll.poll(timeout):
            member = self._members[number]
            found += [(member, message) for message in member.read()]
        return found

    # ------------------------------------------------------------------------ the scenarios

    def idle(self, count: int, seconds: float) -> Figures:
        """Let so many do nothing but answer beats, and tell what they take."""
        self.part(self.join("/room", _SCOUTS))
        before = self.ask("memory")
        began = time.perf_counter()
        members = self._fill_room(count)
        opened = time.perf_counter() - began
        self._sit(_SETTLE * BEAT)
        beats = sum(member.beats for member in members)
        began, cpu = time.perf_counter(), self.ask("usage")["cpu"]
        busy = self._sit(seconds)
        cpu, took = self.ask("usage")["cpu"] - cpu, time.perf_counter() - began
        beats = sum(member.beats for member in members) - beats
        each = beats / (count * took / BEAT)
        if each < _LEAST_BEATS:
            raise LoadFailed(f"{each:.2f} beats in an interval for each of {count} clients")
        after = self.ask("memory")
        return {
            "memory": (after["Rss"] - before["Rss"]) / count,
            "private": (after["Private"] - before["Private"]) / count,
            "load": cpu / took,
            "open": opened,
            "beats": each,
            "generator": busy / took,
        }

    def _sit(self, seconds: float) -> float:
        """Answer beats; give the processor time that it took."""
        cpu = time.process_time()
        for left in _until(seconds):
            self._read_all(min(left, 0.1))
        return time.process_time() - cpu

    def broadcast(self, count: int, size: int, *, is_awake: bool) -> Figures:
        """Have a room told something a few times, and wait each time until the last client has it."""
        members = self._fill_room(count)
        frame = unmasked(_TEXT, b"x" * size)
        self._hear(members, frame, size, is_awake=is_awake)
        with _no_garbage():
            cpu, wall, busy = self.ask("usage")["cpu"], 0.0, 0.0
            for _ in range(_BROADCASTS):
                took, worked = self._hear(members, frame, size, is_awake=is_awake)
                wall, busy = wall + took, busy + worked
            cpu = self.ask("usage")["cpu"] - cpu
        return {"wall": wall / _BROADCASTS, "cpu": cpu / _BROADCASTS, "generator": busy / wall}

    def _hear(self, members: Sequence[Member], frame: bytes, size: int, *, is_awake: bool) -> tuple[float, float]:
        """Wait until everybody has a frame; give the seconds until the last one had, and those spent reading."""
        waiting = {member.sock.fileno() for member in members}
        took, is_answered, meter = 0.0, False, Meter()
        self._control.send(f"broadcast {size}".encode())
        for events in meter.events(self._poll, is_awake=is_awake):
            for number, _ in events:
                member = self._members[number]
                if member is self._control:
                    is_answered = bool(member.read()) or is_answered
                # Whole, since the kernel had it in one piece.
                elif number in waiting and member.sock.recv(_READ) == frame:
                    waiting.discard(number)
                else:
                    raise LoadFailed("something else than what the room was told")
            if not waiting:
                took = took or meter.seconds()
                if is_answered:
                    return took, meter.busy
        raise LoadFailed(f"{len(waiting)} of {len(members)} clients were told nothing")

    def echo(self, scenario: Scenario, seconds: float, *, is_awake: bool) -> Figures:
        """Have so many send a message, and another one for each echo that comes back."""
        members = self.join("/echo", scenario.clients)
        body = b"x" * scenario.size
        for _ in range(_ROUND_TRIPS_FIRST):
            self._check_echo(members, body)
        players = {member.sock.fileno(): Player(member, body) for member in members}
        with _no_garbage():
            self._play(players, scenario.window, seconds / 4, is_awake=is_awake)
            cpu = self.ask("usage")["cpu"]
            messages, wall, busy = self._play(players, scenario.window, seconds, is_awake=is_awake)
            cpu = self.ask("usage")["cpu"] - cpu
        self._check_echo(members, body)
        return {"wall": wall / messages, "cpu": cpu / messages, "generator": busy / wall, "messages": messages}

    def _check_echo(self, members: Sequence[Member], body: bytes) -> None:
        for member in members:
            member.send(body)
        waiting = set(members)
        for _ in _until(PATIENCE):
            for member, message in self._read_all(0.1):
                if message != body:
                    raise LoadFailed("an echo of something else")
                waiting.discard(member)
            if not waiting:
                return
        raise LoadFailed(f"{len(waiting)} of {len(members)} clients have no echo")

    def _play(
        self, players: dict[int, Player], window: int, seconds: float, *, is_awake: bool
    ) -> tuple[int, float, float]:
        """Keep a window of messages under way for each, and then wait for the last echo.

        Returns:
            Messages echoed, the seconds from the first to the last, and those spent reading and writing.
        """
        for player in players.values():
            player.send(window)
        left, messages = len(players) * window, 0
        meter = Meter()
        for events in meter.events(self._poll, is_awake=is_awake):
            is_over = meter.seconds() > seconds
            for number, _ in events:
                echoes = players[number].read()
                messages += echoes
                if is_over:
                    left -= echoes
                elif echoes:
                    players[number].send(echoes)
            if left == 0:
                return messages, meter.seconds(), meter.busy
        raise LoadFailed(f"{left} echoes did not come")


@final
class Player:
    """A client in an echo: what it sends is made beforehand, and what it gets is counted."""

    __slots__ = ("_buffer", "_frames", "_recv", "_rest", "_send", "_size")

    def __init__(self, member: Member, body: bytes) -> None:
        self._send = member.sock.send
        self._recv = member.sock.recv_into
        self._frames = masked(_TEXT, body, member.mask)
        self._size = len(unmasked(_TEXT, body))
        self._rest = 0
        self._buffer = bytearray(64 * 1024)

    def send(self, count: int) -> None:
        data = self._frames * count
        if self._send(data) != len(data):
            raise LoadFailed("the server does not read")

    def read(self) -> int:
        """Take what is there; give how many echoes that completes."""
        got = self._recv(self._buffer)
        if not got:
            raise LoadFailed("the server hung up")
        echoes, self._rest = divmod(self._rest + got, self._size)
        return echoes


@final
class Meter:
    """Waits for events, and knows how long that was not waiting."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.busy = 0.0

    def seconds(self) -> float:
        """Give the seconds since it was made."""
        return time.perf_counter() - self._began

    def events(self, poll: select.epoll, *, is_awake: bool) -> Iterator[Sequence[tuple[int, int]]]:
        """Give events as they come, for as long as there is patience.

        Args:
            poll: Where they come from.
            is_awake: To look for them without sleeping. Otherwise a server pays for waking us, which no server does
                whose clients are on other machines.
        """
        timeout, deadline = (0.0 if is_awake else 0.1), self._began + PATIENCE
        while time.perf_counter() < deadline:
            events = poll.poll(timeout)
            if events:
                began = time.perf_counter()
                yield events
                self.busy += time.perf_counter() - began


def _until(seconds: float) -> Iterator[float]:
    """Go round until so many seconds are over; give those that are left."""
    deadline = time.perf_counter() + seconds
    while (left := deadline - time.perf_counter()) > 0:
        yield left


@contextmanager
def _no_garbage() -> Generator[None]:
    """Keep Python from collecting garbage of ours while a server is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def crowd(port: int, seed: int) -> Generator[Crowd]:
    """Connect to a server for the time of a block."""
    made = Crowd(port, seed)
    try:
        made.open()
        yield made
    finally:
        made.close()


def play(scenario: Scenario, made: Crowd, seconds: float, *, is_awake: bool) -> Figures:
    """Play a scenario against a server."""
    if scenario.kind == "idle":
        return made.idle(scenario.clients, max(2 * BEAT, 4 * seconds))
    if scenario.kind == "broadcast":
        return made.broadcast(scenario.clients, scenario.size, is_awake=is_awake)
    return made.echo(scenario, seconds, is_awake=is_awake)
