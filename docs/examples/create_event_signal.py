"""`create_event_signal`: the latest event of one class as a signal."""

import trio

from trio_wsprim import CloseEvent, MessageEvent, create_event_signal, create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        messages = create_event_signal(ws, MessageEvent)
        closes = create_event_signal(ws, CloseEvent)
        await ws.send("it works")
        event = await messages.wait_value(lambda event: event is not None)
        print(event)
    print(closes.value)


if __name__ == "__main__":
    trio.run(main)
