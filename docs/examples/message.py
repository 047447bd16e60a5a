"""The `message` signal and `events`: look at the last message, or miss nothing."""

import trio

from trio_wsprim import MessageEvent, OpenEvent, create_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws, ws.events() as events:
        await ws.send("it works")
        async for event in events:
            match event:
                case OpenEvent():
                    print("open")
                case MessageEvent(data):
                    print("message:", data)
                    break
        print("last message:", ws.message.value)


if __name__ == "__main__":
    trio.run(main)
