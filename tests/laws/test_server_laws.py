"""Random programs of strangers against one server on virtual time: what holds after each step, and at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.listeners import MemoryListener, dialing, handshake
from trio_wsprim import Rejection, Request, Server, ServerWebSocket, create_ws_server
from trio_wsprim.testing import MemoryStream, Opcode, encode_frame

PLACES: Final = 3
STEPS: Final = (
    "dial",
    "ask",
    "ask for nothing",
    "ask from elsewhere",
    "talk",
    "ping",
    "breach",
    "read",
    "close",
    "drop",
    "reset",
    "broadcast",
    "wait",
    "wait long",
    "raise",
    "stay",
)
PROGRAMS: Final = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=40)
ENDS: Final = ("aclose", "leave", "cancel", "error")


class World:
    """A server, its listener, and strangers by number."""

    def __init__(self) -> None:
        self.listener = MemoryListener(256)
        self.strangers: dict[int, MemoryStream] = {}

    async def step(self, server: Server, what: str, number: int) -> None:
        stranger = self.strangers.get(number)
        if what == "dial":
            if stranger is not None:
                stranger.close()
            self.strangers[number] = self.listener.dial()
        elif what == "broadcast":
            await server.broadcast(b"x" * 40 * number)
        elif what.startswith("wait"):
            await trio.sleep(number * (5 if what == "wait long" else 0.1))
        elif stranger is not None:
            await self._act(what, stranger)

    async def _act(self, what: str, stranger: MemoryStream) -> None:
        match what:
            case "read":
                await attempt(stranger.receive_some)
            case "drop":
                stranger.close()
            case "reset":
                stranger.reset()
            case _:
                await attempt(lambda: stranger.send_all(words(what)))


def words(what: str) -> bytes:
    """What a stranger says."""
    match what:
        case "ask":
            return handshake("/")
        case "raise" | "stay":
            return handshake(f"/{what}")
        case "ask for nothing":
            return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        case "ask from elsewhere":
            return handshake("/", [("Origin", "http://evil.test")])
        case "talk":
            return encode_frame(Opcode.TEXT, b"hello", masked=True)
        case "ping":
            return encode_frame(Opcode.PING, b"hello", masked=True)
        case "close":
            return encode_frame(Opcode.CLOSE, b"\x03\xe8", masked=True)
        case _:
            return encode_frame(Opcode.TEXT, b"unmasked")


async def attempt(work: Callable[[], Awaitable[object]]) -> None:
    """Do what a network may refuse, or keep waiting for."""
    with trio.move_on_after(0.01):
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await work()


async def handle(ws: ServerWebSocket) -> None:
    match ws.request.path:
        case "/raise":
            await ws.send("now")
            raise ValueError
        case "/stay":
            await trio.sleep_forever()
        case _:
            async for message in ws:
                await ws.send(message)


async def authorize(request: Request) -> Rejection | None:
    await trio.sleep(0.05)
    return Rejection(403) if request.path == "/no" else None


@settings(max_examples=200)
@given(program=PROGRAMS, end=st.sampled_from(ENDS))
def test_whatever_strangers_do_friends_are_served_and_nothing_is_left(program: list[tuple[str, int]], end: str) -> None:
    async def main() -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        world = World()
        error = ValueError("of the block")
        began = 0.0
        came_out = None
        with trio.CancelScope() as scope:
            try:
                async with create_ws_server(
                    handle,
                    listeners=[world.listener],
                    authorize=authorize,
                    max_connections=PLACES,
                    handshake_timeout=5.0,
                    write_timeout=7.0,
                ) as server:
                    async with dialing(world.listener) as friend:
                        await friend.wait_open()
                        for what, number in program:
                            await world.step(server, what, number)
                            assert len(server.connections) <= PLACES
                            # Others' broadcasts come between, but what comes back comes back.
                            await friend.send("mine")
                            while await friend.receive() != "mine":
                                pass
                    began = trio.current_time()
                    if end == "aclose":
                        await server.aclose(grace=4.0)
                    elif end == "error":
                        raise error
                    elif end == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            except ValueError as raised:
                came_out = raised
        assert came_out is (error if end == "error" else None)
        assert trio.current_time() - began <= 6
        assert await world.listener.count_open() == 0
        for stranger in world.strangers.values():
            stranger.close()
        await wait_all_tasks_blocked()
        await trio.sleep(1)  # the clock of all sockets stays a moment
        assert trio.lowlevel.current_statistics().tasks_living == before

    trio.run(main, clock=MockClock(autojump_threshold=0))
