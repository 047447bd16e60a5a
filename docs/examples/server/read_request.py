"""What the client has asked for: here the path is a room, and the query says who comes."""

import trio

from trio_wsprim import ServerWebSocket, serve_ws


async def greet(ws: ServerWebSocket) -> None:
    request = ws.request
    room = request.path.partition("?")[0].strip("/") or "lobby"
    name = request.query.get("name", ("somebody",))[0]  # all values of a name, decoded
    language = request.header("Accept-Language") or "any language"
    await ws.send(f"{name} is in {room}, and speaks {language}")


async def main(port: int = 5000) -> None:
    await serve_ws(greet, port=port)


if __name__ == "__main__":
    trio.run(main)
