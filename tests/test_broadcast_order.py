"""Broadcasts that several tasks make at once."""

import trio

from trio_wsprim import ServerWebSocket, create_ws, create_ws_server


async def test_broadcasts_of_several_tasks_go_out_in_the_order_of_the_calls() -> None:
    asked: list[str] = []
    here = trio.Event()

    async def stay(ws: ServerWebSocket) -> None:
        here.set()
        await ws.wait_closed()

    with trio.fail_after(60):
        async with create_ws_server(stay) as server, create_ws(server.url) as ws:
            await here.wait()

            async def broadcast(message: str) -> None:
                asked.append(message)
                await server.broadcast(message)

            for _ in range(50):  # which task goes on first is chance
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(broadcast, "this")
                    nursery.start_soon(broadcast, "that")
            got = [await ws.receive() for _ in asked]

    assert got == asked
