"""The chat's server, with clients of ours: what it lets in, and what it tells whom."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

from tests.peers.chatting import SERVER, Chat, chatting
from tests.peers.test_chat_page import png
from trio_wsprim import Buffer, ConnectionClosed, ConnectionRejected, WebSocket, create_ws

PATIENCE: Final = 120
BIG: Final = Buffer(max_bytes=2**27)
HANDSHAKE: Final = (
    "GET /lobby?name=Snail HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def hosting() -> AsyncGenerator[Chat]:
    with trio.fail_after(PATIENCE):
        async with chatting() as chat:
            yield chat


async def next_any(ws: WebSocket) -> dict[str, Any]:
    """Take the next entry, without its image."""
    message = await ws.receive()
    entry: dict[str, Any] = json.loads(message if isinstance(message, str) else message.partition(b"\n")[0])
    return entry


async def next_of(ws: WebSocket, kind: str) -> dict[str, Any]:
    """Take the next entry of a kind, and pass over others."""
    while (entry := await next_any(ws))["type"] != kind:
        pass
    return entry


def said(key: str, text: object) -> str:
    return json.dumps({"id": key, "text": text})


async def test_there_are_only_the_rooms_that_there_are() -> None:
    async with hosting() as chat, create_ws(f"{chat.sockets}/cellar") as ws:
        with pytest.raises(ConnectionRejected) as refused:
            await ws.wait_open()

    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "somebody"),
        ("?name=", "somebody"),
        ("?name=%20Grace%20%20Hopper%0A", "Grace Hopper"),
        ("?name=" + "x" * 99, "x" * 24),
        ("?name=Ada&name=Eve", "Ada"),
    ],
)
async def test_names_are_short_and_on_one_line(query: str, name: str) -> None:
    async with hosting() as chat, create_ws(f"{chat.sockets}/lobby{query}") as ws:
        assert (await next_of(ws, "people"))["names"] == [name]


async def test_who_leaves_is_here_no_more() -> None:
    async with hosting() as chat, create_ws(f"{chat.sockets}/lobby?name=Ada") as ada:
        assert (await next_of(ada, "people"))["names"] == ["Ada"]
        async with create_ws(f"{chat.sockets}/lobby?name=Grace"):
            assert (await next_of(ada, "people"))["names"] == ["Ada", "Grace"]

        assert (await next_of(ada, "people"))["names"] == ["Ada"]


def nonsense() -> Iterator[tuple[str | bytes, str | None]]:
    """What no page would send, and the id in it that the server can tell."""
    yield "", None
    yield "not JSON", None
    yield "[" * 100_000, None
    yield '"a string"', None
    yield "{}", None
    yield '{"id": 7, "text": "hello"}', None
    yield said("x" * 65, "hello"), None
    yield b"\xff\xfe\xfd", None
    yield b"\n", None
    yield said("a", ""), "a"
    yield said("b", "  \n"), "b"
    yield said("c", "x" * 2001), "c"
    yield said("d", 7), "d"
    yield said("e", None), "e"
    yield b'{"id": "f"}', "f"
    yield b'{"id": "g"}\n<svg xmlns="http://www.w3.org/2000/svg"/>', "g"
    yield b'{"id": "h"}\nRIFF\0\0\0\0WAVE', "h"
    yield b'{"id": "i"}\n\x89PNG\r\n\x1a\n' + bytes(SERVER.MAX_IMAGE), "i"


async def test_nonsense_is_refused_with_a_reason_and_nobody_else_sees_it() -> None:
    async with (
        hosting() as chat,
        create_ws(f"{chat.sockets}/lobby?name=Ada") as ada,
        create_ws(f"{chat.sockets}/lobby?name=Grace") as grace,
    ):
        for message, key in nonsense():
            await ada.send(message)
            refused = await next_of(ada, "refused")
            assert refused["id"] == key
            assert refused["why"]
        await ada.send(said("z", "sense"))

        assert (await next_of(grace, "text"))["id"] == "z"


async def test_a_message_that_comes_twice_is_told_once() -> None:
    async with hosting() as chat, create_ws(f"{chat.sockets}/lobby?name=Ada") as ada:
        for key in ("one", "one", "two"):
            await ada.send(said(key, f"text {key}"))

        assert (await next_of(ada, "text"))["id"] == "one"
        assert (await next_of(ada, "text"))["id"] == "two"


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (png(3, 3), "image/png"),
        (b"\xff\xd8\xff\xe0 and so on\n\n", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
async def test_an_image_goes_to_all_byte_by_byte(image: bytes, kind: str) -> None:
    async with (
        hosting() as chat,
        create_ws(f"{chat.sockets}/garden?name=Ada") as ada,
        create_ws(f"{chat.sockets}/garden?name=Grace", inbox=None) as grace,
    ):
        await grace.wait_open()
        await ada.send(b'{"id": "picture"}\n' + image)
        message = await grace.message.wait_value(lambda message: isinstance(message, bytes))

    assert isinstance(message, bytes)
    head, _, arrived = message.partition(b"\n")
    assert arrived == image
    told = json.loads(head)
    assert (told["type"], told["id"], told["name"], told["kind"]) == ("image", "picture", "Ada", kind)


async def test_what_is_far_too_large_ends_the_connection() -> None:
    async with hosting() as chat, create_ws(f"{chat.sockets}/lobby") as ws:
        await ws.send(bytes(2**20))
        with pytest.raises(ConnectionClosed) as end:
            await next_of(ws, "text")

    assert end.value.code == 1009


async def test_a_newcomer_gets_the_latest_of_its_room_in_order() -> None:
    async with hosting() as chat, create_ws(f"{chat.sockets}/lobby?name=Ada") as ada:
        for number in range(SERVER.HISTORY + 5):
            await ada.send(said(str(number), "hello"))
        await ada.flush(confirm=True)
        while (await next_of(ada, "text"))["id"] != str(SERVER.HISTORY + 4):
            pass

        async with create_ws(f"{chat.sockets}/lobby?name=Grace") as grace:
            told = [(await next_of(grace, "text"))["id"] for _ in range(SERVER.HISTORY)]

    assert told == [str(number) for number in range(5, SERVER.HISTORY + 5)]


async def test_a_client_that_takes_nothing_is_shown_the_door_and_holds_nobody_up() -> None:
    image = png(1, 1).ljust(SERVER.MAX_IMAGE, b"\0")
    async with hosting() as chat, create_ws(f"{chat.sockets}/lobby?name=Ada", outbox=BIG, inbox=BIG) as ada:
        host, _, port = chat.sockets.removeprefix("ws://").partition(":")
        snail = await trio.open_tcp_stream(host, int(port))
        async with snail:
            await snail.send_all(HANDSHAKE.format(host=host).encode())
            while (await next_of(ada, "people"))["names"] != ["Ada", "Snail"]:
                pass

            # More than its outbox, and what the kernel keeps for it, can hold.
            for number in range(150):
                await ada.send(b'{"id": "%d"}\n' % number + image)

            told = [entry async for entry in entries_until(ada, "149")]

    assert [entry["id"] for entry in told if entry["type"] == "image"] == [str(number) for number in range(150)]
    assert [entry["names"] for entry in told if entry["type"] == "people"][-1] == ["Ada"]


async def entries_until(ws: WebSocket, key: str) -> AsyncGenerator[dict[str, Any]]:
    while True:
        entry = await next_any(ws)
        yield entry
        if entry.get("id") == key:
            return
