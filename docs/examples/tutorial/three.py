"""It comes back."""

import trio

from trio_wsprim import CloseEvent, ConnectEvent, Event, OpenEvent, RetryEvent, create_reconnecting_ws


async def watch(events: trio.MemoryReceiveChannel[Event]) -> None:
    async for event in events:
        match event:
            case ConnectEvent(attempt):
                print("dialling, attempt", attempt)
            case OpenEvent():
                print("open")
            case CloseEvent(code):
                print("closed with", code)
            case RetryEvent(_, delay):
                print(f"again in {delay:.1f} s")
            case _:
                pass


async def main(url: str = "ws://localhost:5000", messages: int = 60, pause: float = 1.0) -> None:
    async with (
        create_reconnecting_ws(url, delay=0.5) as ws,
        ws.events() as events,  # first thing after opening: then it misses nothing
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch, events)
        for number in range(messages):
            await ws.send(str(number))
            print("got", await ws.receive())
            await trio.sleep(pause)
        await ws.aclose()


if __name__ == "__main__":
    trio.run(main)
