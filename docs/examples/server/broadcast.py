"""One message to all, twice a second; a client that does not keep up misses the oldest."""

import itertools

import trio

from trio_wsprim import Buffer, ServerWebSocket, create_ws_server, make_heartbeat_ws


async def stay(ws: ServerWebSocket) -> None:
    make_heartbeat_ws(ws, message=None, interval=20.0, wait=20.0)  # finds clients that are gone
    await ws.wait_closed()


async def main(port: int = 5000) -> None:
    newest = Buffer(max_messages=10, when_full="drop_oldest")
    async with create_ws_server(stay, port=port, outbox=newest, inbox=None) as server:
        for number in itertools.count(1):
            await server.broadcast(f"tick {number}")
            await trio.sleep(0.5)


if __name__ == "__main__":
    trio.run(main)
