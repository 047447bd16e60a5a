"""Typed messages by msgspec: checked as they are decoded, some times as fast as `json`."""

import msgspec
import trio

from trio_wsprim import create_ws


class Trade(msgspec.Struct):
    symbol: str
    price: float


encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Trade)


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        await ws.send(encoder.encode(Trade("ACME", 12.5)))
        await ws.send('{"symbol": "ACME", "price": "dear"}')
        for message in (await ws.receive(), await ws.receive()):
            try:
                print(decoder.decode(message))
            except msgspec.ValidationError as error:
                print("refused:", error)


if __name__ == "__main__":
    trio.run(main)
