"""A chat with rooms: the sockets are served by `trio_wsprim`, their page by hypercorn, in one trio program.

    pip install 'trio-wsprim[chat]'
    python docs/examples/chat/server.py

Then open http://localhost:8000 in two windows.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.requests import Request as PageRequest
from starlette.responses import HTMLResponse
from starlette.routing import Route

from trio_wsprim import Rejection, Request, ServerWebSocket, create_ws_server, make_heartbeat_ws

PAGE: Final = Path(__file__).with_name("index.html")
ROOMS: Final = ("lobby", "garden", "workshop")
MAX_NAME: Final = 24
MAX_TEXT: Final = 2000
# So that a whole history fits into one connection's outbox (16 MiB), even if all of it is images.
MAX_IMAGE: Final = 2**18
HISTORY: Final = 50
# What an image is, by its first bytes, whatever its sender calls it. No SVG: it may hold scripts.
SIGNATURES: Final = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass
class Room:
    """Who is in it, by name, and what was said last, by id."""

    people: dict[ServerWebSocket, str] = field(default_factory=dict)
    history: dict[str, str | bytes] = field(default_factory=dict)

    def remember(self, key: str, entry: str | bytes) -> None:
        self.history[key] = entry
        if len(self.history) > HISTORY:
            del self.history[next(iter(self.history))]


def room_name(request: Request) -> str:
    return urlsplit(request.path).path.removeprefix("/")


def user_name(request: Request) -> str:
    names = request.query.get("name", ("",))
    return " ".join(names[0].split())[:MAX_NAME] or "somebody"


async def find_room(request: Request) -> Rejection | None:
    return None if room_name(request) in ROOMS else Rejection(404, body=b"there is no such room\n")


def image_type(image: bytes) -> str | None:
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in SIGNATURES.items() if image.startswith(signature)), None)


def take_apart(message: str | bytes) -> tuple[str, object, bytes]:
    """Read what a page sends: a line of JSON, and behind it an image, if there is one."""
    head, _, image = (message.encode() if isinstance(message, str) else message).partition(b"\n")
    match json.loads(head):
        case {"id": str(key), **rest} if len(key) <= 64:
            return key, rest.get("text"), image
        case _:
            raise ValueError("a message needs an id")


def make_entry(key: str, text: object, image: bytes, name: str) -> str | bytes:
    """Write what the room gets, in the same form."""
    entry: dict[str, object] = {"id": key, "name": name, "at": time.time()}
    if isinstance(text, str) and text.strip() and len(text) <= MAX_TEXT:
        return json.dumps({"type": "text", "text": text, **entry})
    if (kind := image_type(image)) and len(image) <= MAX_IMAGE:
        return json.dumps({"type": "image", "kind": kind, **entry}).encode() + b"\n" + image
    raise ValueError(f"neither a text of up to {MAX_TEXT} characters nor an image of up to {MAX_IMAGE >> 10} KiB")


async def main(
    host: str = "127.0.0.1",
    port: int = 8000,
    socket_port: int = 8001,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    rooms = {name: Room() for name in ROOMS}

    async def chat(ws: ServerWebSocket) -> None:
        room, name = rooms[room_name(ws.request)], user_name(ws.request)
        make_heartbeat_ws(ws, message=None, interval=20.0, wait=10.0)  # a phone that is gone says no goodbye
        # Without waiting in between: a newcomer gets each entry once, from the history or as it comes in.
        for entry in room.history.values():
            ws.send_nowait(entry)
        room.people[ws] = name
        try:
            await tell_who_is_here(room)
            async for message in ws:
                if message == "ping":  # a page cannot see ping frames, so it has its own
                    await ws.send("pong")
                else:
                    await post(ws, room, message)
        finally:
            del room.people[ws]
            await tell_who_is_here(room)

    async def post(ws: ServerWebSocket, room: Room, message: str | bytes) -> None:
        key = None
        try:
            key, text, image = take_apart(message)
            entry = make_entry(key, text, image, room.people[ws])
        except (ValueError, RecursionError) as error:  # the second from very deep JSON
            await ws.send(json.dumps({"type": "refused", "id": key, "why": str(error)}))
            return
        if key not in room.history:  # or a page sends it again, whose connection broke
            room.remember(key, entry)
            await tell(room, entry)

    async def tell(room: Room, entry: str | bytes) -> None:
        for ws in await server.broadcast(entry, to=tuple(room.people)):
            nursery.start_soon(ws.aclose, 4000, "too slow")  # it comes back, and gets the history

    async def tell_who_is_here(room: Room) -> None:
        await tell(room, json.dumps({"type": "people", "names": sorted(room.people.values())}))

    async def page(_request: PageRequest) -> HTMLResponse:
        config = {"port": socket_port, "rooms": ROOMS, "name": MAX_NAME, "text": MAX_TEXT, "image": MAX_IMAGE}
        html = PAGE.read_text(encoding="utf-8")
        return HTMLResponse(html.replace("{{ config }}", json.dumps(config)))

    async with (
        trio.open_nursery() as nursery,
        create_ws_server(
            chat,
            host,
            socket_port,
            origins=[f"http://{host}:{port}", f"http://localhost:{port}"],  # of our page, and of no other
            authorize=find_room,
            max_message_bytes=MAX_IMAGE + 1024,
        ) as server,
    ):
        config = Config()
        config.bind = [f"{host}:{port}"]
        app = cast("ASGIFramework", Starlette(routes=[Route("/", page)]))  # they name the same types differently
        await serve(app, config, task_status=task_status)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1")
