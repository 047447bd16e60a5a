"""Rooms that several processes share: what one of them is told, all of them pass on, by way of Redis.

    redis-server --port 6379 --save "" --appendonly no
    python docs/examples/fanout_redis.py --port 8000 --redis redis://127.0.0.1:6379

The second command, in as many terminals as you like: they share the port. A client that connects to
`ws://127.0.0.1:8000/kitchen` is in that room, sends text, and gets JSON.
"""

import argparse
import json
import logging
import os
import signal
import socket
from collections import defaultdict

import anyio
import coredis
import trio
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from trio_wsprim import Backoff, Server, ServerWebSocket, create_ws_server, make_heartbeat_ws

CHANNEL = "room:"
# Redis is near, and comes back as fast as it was gone; but not all processes should call it in the same millisecond.
REDIALS = Backoff(first=0.1, maximum=5.0)
# Seconds in which Redis answers, or is taken for dead.
PATIENCE = 5.0
# Seconds that clients have to leave when this process is told to end.
GRACE = 10.0

log = logging.getLogger("fanout_redis")


class Rooms:
    """Who is in which room of this process, and the way to the same rooms of all others."""

    def __init__(self) -> None:
        self._members: defaultdict[str, set[ServerWebSocket]] = defaultdict(set)
        # Only while messages from other processes reach us, so that nobody is told half of what is said.
        self._redis: coredis.Redis[str] | None = None

    async def visit(self, ws: ServerWebSocket) -> None:
        """Have a client in the room that it asks for, for as long as it stays."""
        make_heartbeat_ws(ws, message=None, interval=20.0, wait=10.0)  # who vanishes without a word leaves, too
        room = ws.request.path.partition("?")[0]
        self._members[room].add(ws)
        try:
            # From here on it hears all that is said; so whoever waits for its welcome misses nothing after it.
            await ws.send(say("welcome", room=room, process=os.getpid(), shared=self._redis is not None))
            async for message in ws:
                if not isinstance(message, str):
                    await ws.aclose(1003, "text only")
                elif not await self._publish(room, say("message", room=room, text=message)):
                    await ws.send(say("failed", text=message))
        finally:
            self._members[room].discard(ws)
            if not self._members[room]:
                del self._members[room]

    async def _publish(self, room: str, message: str) -> bool:
        """Hand a message to all processes, this one among them; tell whether Redis has said that it has it."""
        if self._redis is None:
            return False
        try:
            with trio.fail_after(PATIENCE):
                await self._redis.publish(CHANNEL + room, message)
        except (RedisError, OSError, trio.TooSlowError):
            return False
        return True

    async def follow(self, server: Server, url: str) -> None:
        """Pass on what any process publishes, and come back to Redis whenever it goes, until cancelled."""
        delays = REDIALS.delays()
        while True:
            try:
                async with connect(url) as redis, listen_to(redis) as news:
                    delays = REDIALS.delays()
                    await self._be_shared(server, redis)
                    async for said in news:
                        room = str(said["channel"]).removeprefix(CHANNEL)
                        await server.broadcast(str(said["data"]), to=self._members.get(room, ()))
            except* (RedisError, OSError) as errors:  # a `TimeoutError` is an `OSError`, too
                log.warning("no Redis: %s", first_of(errors))
            except* anyio.ClosedResourceError:
                pass  # we are cancelled, and coredis wanted to unsubscribe on a connection that was, too
            await self._be_shared(server, None)
            await trio.sleep(next(delays))

    async def _be_shared(self, server: Server, redis: "coredis.Redis[str] | None") -> None:
        """Take up or give up Redis, and tell everybody if that is news."""
        if redis is not self._redis:
            self._redis = redis
            await server.broadcast(say("shared", value=redis is not None))


def say(kind: str, **facts: object) -> str:
    return json.dumps({"type": kind, **facts})


def first_of(error: BaseException) -> BaseException:
    """Take an error out of the groups in which nurseries raise it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def connect(url: str) -> "coredis.Redis[str]":
    # It tries nothing again: whoever published something twice would have said it twice.
    return coredis.Redis.from_url(
        url, decode_responses=True, connect_timeout=PATIENCE, stream_timeout=PATIENCE, retry_policy=NoRetryPolicy()
    )


def listen_to(redis: "coredis.Redis[str]") -> "coredis.patterns.pubsub.PubSub[str]":
    """Subscribe to all rooms. Its own reconnecting is off, since it does not tell that messages were missed."""
    return redis.pubsub(patterns=[f"{CHANNEL}*"], ignore_subscribe_messages=True, retry_policy=NoRetryPolicy())


async def open_shared_port(host: str, port: int) -> trio.SocketListener:
    """Listen where other processes may listen, too; the kernel deals out who connects (Linux, the BSDs)."""
    listening = trio.socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    await listening.bind((host, port))
    listening.listen(1024)
    return trio.SocketListener(listening)


async def main(host: str, port: int, redis: str) -> None:
    rooms = Rooms()
    listeners = [await open_shared_port(host, port)]
    async with create_ws_server(rooms.visit, listeners=listeners) as server, trio.open_nursery() as nursery:
        nursery.start_soon(rooms.follow, server, redis)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            print(f"process {os.getpid()} serves {server.url}", flush=True)
            async for _ in signals:
                break
        await server.aclose(GRACE)  # which tells the clients 1001: they come back, to another process
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--redis", default="redis://127.0.0.1:6379")
    trio.run(lambda: main(**vars(parser.parse_args())))
