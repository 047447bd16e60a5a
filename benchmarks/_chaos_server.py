"""The server of a chaos run: a process of its own, that talks, listens, and writes down what it got.

It stands on the `websockets` package and asyncio, so that it shares no line with what is to be proved. Run as a
program, it prints its port in one line, serves until its standard input ends, and prints its record in another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, cast

import trio
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from benchmarks._chaos_accounting import make_down, read_message

_ROOT: Final = Path(__file__).resolve().parent.parent
# Seconds between two messages of ours on one connection.
_PACE: Final = 0.003
# Seconds in which connections may end after the client and the proxy have gone.
_GRACE: Final = 5.0


# ------------------------------------------------------------------------------------ in the server's process


class Recorder:
    """Writes down the number of each message, in the order of arrival over all connections."""

    def __init__(self) -> None:
        self._connections = 0
        self._live: set[asyncio.Task[object]] = set()
        self.arrivals: list[int] = []

    async def handle(self, ws: ServerConnection) -> None:
        """Serve one connection."""
        self._connections += 1
        me = asyncio.current_task()
        assert me is not None
        self._live.add(me)
        talk = asyncio.create_task(self._talk(ws, self._connections))
        try:
            # What came before a connection broke is still read here; `websockets` keeps it.
            async for message in ws:
                self.arrivals.append(read_message(message))
        except ConnectionClosed:
            pass
        finally:
            talk.cancel()
            self._live.discard(me)

    async def _talk(self, ws: ServerConnection, connection: int) -> None:
        number = 0
        with suppress(ConnectionClosed):
            while True:
                number += 1
                await ws.send(make_down((connection, number)))
                await asyncio.sleep(_PACE)

    async def wait_idle(self) -> None:
        """Wait until every connection has ended and been read to its end."""
        if self._live:
            await asyncio.wait(self._live)


async def _main() -> None:
    # Half of all handshakes are broken here on purpose.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    recorder = Recorder()
    async with serve(recorder.handle, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await asyncio.wait_for(recorder.wait_idle(), _GRACE)
    print(json.dumps(recorder.arrivals), flush=True)


# ------------------------------------------------------------------------------------ in the process that starts it


class RecordingServer:
    """A server process, seen from the one that started it."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self._process = process
        self.port = port

    async def stop(self) -> list[int]:
        """Let it end, and give the numbers that it got, in order.

        Raises:
            RuntimeError: If it ended without giving its record.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.aclose()
        record = await _read_all(self._process.stdout)
        if not record:
            raise RuntimeError("the server ended without its record; its standard error tells why")
        return cast("list[int]", json.loads(record))


@asynccontextmanager
async def recording_server() -> AsyncGenerator[RecordingServer]:
    """Run the server for the time of a block; whatever happens, it has ended after it."""
    run = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)
    async with trio.open_nursery() as nursery:
        process = cast("trio.Process", await nursery.start(run, [sys.executable, "-m", __name__]))
        assert process.stdin is not None
        assert process.stdout is not None
        async with process.stdin, process.stdout:
            yield RecordingServer(process, int(await _read_line(process.stdout)))


async def _read_line(stream: trio.abc.ReceiveStream) -> bytes:
    """Read a line, byte by byte, so as to leave what follows where it is."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = await stream.receive_some(1)
        if not byte:
            raise RuntimeError("the server ended before it served; its standard error tells why")
        line += byte
    return bytes(line)


async def _read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


if __name__ == "__main__":
    asyncio.run(_main())
