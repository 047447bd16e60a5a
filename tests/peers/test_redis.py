"""`docs/examples/fanout_redis.py`, as several processes with a real Redis between them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest
import trio

from benchmarks._speed_lines import LineReader
from tests.peers import free_ports
from tests.peers.redis import PAGE, Redis, documented, need_redis
from tests.test_examples import load_file
from trio_wsprim import ConnectionClosed, WebSocket, create_reconnecting_ws, create_ws

ROOT: Final = PAGE.parent.parent
EXAMPLE: Final = ROOT / "docs" / "examples" / "fanout_redis.py"
# Seconds for a whole test, on a machine that is busy with other things.
PATIENCE: Final = 120


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """Give one that is not there yet."""
    need_redis()
    (port,) = free_ports(1)
    made = Redis(port, tmp_path)
    yield made
    made.kill()


@asynccontextmanager
async def serving(redis: Redis, port: int) -> AsyncGenerator[trio.Process]:
    """Run a process of the example as the page tells; tell it to end after the block, and see that it does."""
    command = documented("python", port=port, redis=redis.url)
    assert Path(command[1]) == EXAMPLE.relative_to(ROOT)
    process = await trio.lowlevel.open_process([sys.executable, *command[1:]], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = await LineReader(process.stdout).read_line()
        assert line == f"process {process.pid} serves ws://127.0.0.1:{port}/"
        yield process
        if process.poll() is None:
            process.terminate()
            assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def hear(ws: WebSocket) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(await ws.receive()))


async def hear_welcome(ws: WebSocket) -> dict[str, Any]:
    """Wait until a client is in its room, and its process has found Redis."""
    welcome, is_shared = None, False
    while welcome is None or not is_shared:
        told = await hear(ws)
        if told["type"] == "welcome":
            welcome, is_shared = told, is_shared or told["shared"]
        else:
            # It may come before the welcome, and also after one that says the same.
            assert told == {"type": "shared", "value": True}
            is_shared = True
    return welcome


async def hear_said(ws: WebSocket) -> dict[str, Any]:
    """Give the next thing but for the news that Redis is there, which may come twice."""
    while (told := await hear(ws)) == {"type": "shared", "value": True}:
        pass
    return told


def said(room: str, text: str) -> dict[str, Any]:
    return {"type": "message", "room": room, "text": text}


async def test_what_is_said_in_a_room_of_one_process_is_heard_in_that_room_of_the_other(redis: Redis) -> None:
    redis.start()
    one, other = free_ports(2)
    with trio.fail_after(PATIENCE):
        async with (
            serving(redis, one),
            serving(redis, other),
            create_ws(f"ws://127.0.0.1:{one}/kitchen") as speaker,
            create_ws(f"ws://127.0.0.1:{other}/kitchen") as near,
            create_ws(f"ws://127.0.0.1:{other}/hall") as far,
        ):
            for ws in (speaker, near, far):
                await hear_welcome(ws)

            await speaker.send("tea?")
            await near.send("yes – größer")
            await far.send("quiet here")

            # Redis has one order, and everybody hears it.
            heard = [await hear_said(speaker), await hear_said(speaker)]
            assert heard == [await hear_said(near), await hear_said(near)]
            assert said("/kitchen", "tea?") in heard
            assert said("/kitchen", "yes – größer") in heard
            assert await hear_said(far) == said("/hall", "quiet here")


async def test_clients_stay_while_redis_is_away_and_are_told_so(redis: Redis) -> None:
    one, other = free_ports(2)
    with trio.fail_after(PATIENCE):
        async with (
            serving(redis, one),
            serving(redis, other),
            create_ws(f"ws://127.0.0.1:{one}/kitchen") as speaker,
            create_ws(f"ws://127.0.0.1:{other}/kitchen") as listener,
        ):
            for ws in (speaker, listener):
                welcome = await hear(ws)
                assert (welcome["type"], welcome["room"], welcome["shared"]) == ("welcome", "/kitchen", False)

            for text in ("first", "second"):  # Redis comes, and it comes back
                await speaker.send("nobody hears this")
                assert await hear(speaker) == {"type": "failed", "text": "nobody hears this"}
                redis.start()
                for ws in (speaker, listener):
                    assert await hear(ws) == {"type": "shared", "value": True}
                await speaker.send(text)
                for ws in (speaker, listener):
                    assert await hear(ws) == said("/kitchen", text)
                redis.kill()
                for ws in (speaker, listener):
                    assert await hear(ws) == {"type": "shared", "value": False}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_clients_of_a_process_that_ends_come_back_to_another_one_on_the_same_port(
    redis: Redis, how: signal.Signals
) -> None:
    redis.start()
    (port,) = free_ports(1)
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            processes = [await stack.enter_async_context(serving(redis, port)) for _ in range(2)]
            ws = await stack.enter_async_context(create_reconnecting_ws(f"ws://127.0.0.1:{port}/kitchen", delay=0.05))
            first = (await hear_welcome(ws))["process"]
            ended, left = sorted(processes, key=lambda process: process.pid != first)
            assert ended.pid == first

            ended.send_signal(how)
            await ended.wait()

            assert (await hear_welcome(ws))["process"] == left.pid
            await ws.send("still here")
            assert await hear_said(ws) == said("/kitchen", "still here")


async def test_bytes_are_refused(redis: Redis) -> None:
    (port,) = free_ports(1)
    with trio.fail_after(PATIENCE):
        async with serving(redis, port), create_ws(f"ws://127.0.0.1:{port}/kitchen") as ws:
            await hear(ws)
            await ws.send(b"\x00")
            with pytest.raises(ConnectionClosed) as caught:
                await hear(ws)
    assert (caught.value.code, caught.value.reason) == (1003, "text only")


def test_the_page_and_the_example_tell_the_same_commands() -> None:
    told = load_file(EXAMPLE).__doc__
    assert told is not None
    for program in ("redis-server", "python"):
        words = documented(program)
        assert " ".join(words) in told.replace('--save ""', "--save ")
