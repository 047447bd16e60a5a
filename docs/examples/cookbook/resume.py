"""Resume where you were: the id of what was last seen goes into the url of the next dial."""

import json

import trio

from trio_wsprim import create_reconnecting_ws


class Cursor:
    def __init__(self, url: str) -> None:
        self._url = url
        self.last = 0

    def url(self) -> str:
        return f"{self._url}?after={self.last}"


async def main(url: str = "ws://localhost:5000") -> None:
    cursor = Cursor(url)
    async with create_reconnecting_ws(cursor.url, delay=0.1) as ws:
        async for message in ws:
            item = json.loads(message)
            if item["id"] <= cursor.last:
                continue  # the server was not sure that we had it
            cursor.last = item["id"]
            print(item["id"], item["text"])
            if item["id"] == 5:
                break


if __name__ == "__main__":
    trio.run(main)
