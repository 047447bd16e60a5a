"""Who is let in: programs with a token, and the pages of one site."""

import secrets

import trio

from trio_wsprim import Rejection, Request, ServerWebSocket, serve_ws

WANTED = b"Bearer let-me-in"


async def authorize(request: Request) -> Rejection | None:
    given = request.header("Authorization") or ""
    if secrets.compare_digest(given.encode(), WANTED):
        return None
    return Rejection(401, {"WWW-Authenticate": "Bearer"}, b"a token is needed\n")


async def welcome(ws: ServerWebSocket) -> None:
    await ws.send("welcome")


async def main(port: int = 5000) -> None:
    await serve_ws(welcome, port=port, authorize=authorize, origins=["https://app.example.com"])


if __name__ == "__main__":
    trio.run(main)
