"""Stop on a signal without losing anything: leave the block, and it sends what is buffered before it closes."""

import signal

import trio

from trio_wsprim import create_reconnecting_ws


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url, close_timeout=10) as ws:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def stop_on_signal() -> None:
                    async for number in signals:
                        print(signal.Signals(number).name, "came")
                        nursery.cancel_scope.cancel()  # the work, not the socket
                        return

                nursery.start_soon(stop_on_signal)
                async for message in ws:
                    print("working on", message)
                    await ws.send(f"{message!s} is done")
    print("closed, and nothing is left:", ws.undelivered)


if __name__ == "__main__":
    trio.run(main)
