"""The chat's page in a real browser: what people see, do, and come back to."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.peers.chatting import Chat, chatting
from tests.peers.chromium import Browser, Tab, chromium

pytestmark = pytest.mark.usefixtures("chromium_program")

# Seconds for a whole test; each step of it has a limit of its own.
PATIENCE: Final = 240
PHONE: Final = (320, 640)
TEXTS: Final = "[...document.querySelectorAll('#log .bubble')].map((bubble) => bubble.textContent)"
STATE: Final = "document.querySelector('#state').dataset.state"
RECORD_STATES: Final = """
    window.states = [];
    new MutationObserver(() => states.push([state.dataset.state, state.innerText])).observe(
        document.querySelector('#state'), {attributes: true, childList: true, characterData: true, subtree: true}
    );
"""


def png(width: int, height: int, seed: int | None = None) -> bytes:
    """Draw a small picture, or one of noise, which cannot be compressed."""
    row = random.Random(seed).randbytes if seed is not None else bytes
    pixels = b"".join(b"\0" + row(3 * width) for _ in range(height))
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(pixels),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@asynccontextmanager
async def browsing(folder: Path) -> AsyncGenerator[tuple[Chat, Browser]]:
    with trio.fail_after(PATIENCE):
        async with chromium(folder) as browser, chatting() as chat:
            yield chat, browser


async def join(browser: Browser, url: str, name: str, *, beside: Tab | None = None) -> Tab:
    tab = await browser.open(url, beside=beside)
    await tab.type("#name", name)
    await tab.until(f"{STATE} === 'open'")
    return tab


async def wait_texts(tab: Tab, *texts: str) -> None:
    """Wait until exactly these messages are shown as said, in this order, and none as on its way."""
    await tab.until(f"JSON.stringify({TEXTS}) === JSON.stringify({json.dumps(texts)})")
    assert await tab.evaluate("document.querySelectorAll('#waiting .entry').length") == 0


async def test_a_message_from_one_tab_appears_in_the_other_as_text(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        grace = await join(browser, chat.page, "<i>Grace</i>", beside=ada)

        await ada.type("#text", "Good morning")
        await wait_texts(grace, "Good morning")
        await grace.type("#text", "<img src=x onerror=alert(1)>")

        await wait_texts(ada, "Good morning", "<img src=x onerror=alert(1)>")
        await wait_texts(grace, "Good morning", "<img src=x onerror=alert(1)>")
        names = await ada.evaluate("[...document.querySelectorAll('.by b')].map((name) => name.textContent)")
        assert names == ["Ada", "<i>Grace</i>"]
        assert await ada.evaluate("document.querySelectorAll('#log img, #log i, #people i').length") == 0
        assert await ada.evaluate("document.querySelector('#log .mine .bubble').textContent") == "Good morning"
        assert await grace.evaluate("people.dataset.count") == "2"
        assert ada.complaints() == grace.complaints() == []


async def test_a_newcomer_is_told_what_was_said(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        await ada.type("#text", "one")
        await ada.type("#text", "two")
        await wait_texts(ada, "one", "two")

        grace = await join(browser, chat.page, "Grace")

        await wait_texts(grace, "one", "two")


async def test_what_is_said_in_one_room_stays_there(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        grace = await join(browser, f"{chat.page}#garden", "Grace")
        await ada.type("#text", "in the lobby")
        await grace.type("#text", "in the garden")
        await wait_texts(ada, "in the lobby")
        await wait_texts(grace, "in the garden")

        await ada.click("#rooms a[href='#garden']")

        await wait_texts(ada, "in the garden")
        await grace.until("people.dataset.count === '2'")
        assert await ada.evaluate("document.querySelector('#rooms [aria-current=page]').textContent") == "garden"


async def test_the_page_says_how_its_connection_is(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await browser.open(chat.page)
        await ada.evaluate(RECORD_STATES)
        await ada.type("#name", "Ada")
        await ada.until(f"{STATE} === 'open'")

        await chat.end()
        await ada.until("states.some(([, words]) => /^closed, next try in \\d+ s\\s*try now$/.test(words))")
        await chat.start()
        await ada.until(f"{STATE} === 'open'")

        seen: list[tuple[str, Any]] = [(state, words) for state, words in await ada.evaluate("states")]
        kinds = [state for number, (state, _) in enumerate(seen) if number == 0 or seen[number - 1][0] != state]
        assert kinds[:3] == ["connecting", "open", "closed"]
        assert kinds[-2:] == ["connecting", "open"]
        assert await ada.evaluate("says.innerText") == "open"


async def test_both_tabs_survive_a_restart_of_the_server_and_what_was_typed_meanwhile_arrives_once(
    tmp_path: Path,
) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        grace = await join(browser, chat.page, "Grace")
        await ada.type("#text", "before")
        await wait_texts(grace, "before")

        await chat.end()
        await ada.until(f"{STATE} === 'closed'")
        await grace.until(f"{STATE} === 'closed'")
        await ada.type("#text", "meanwhile")
        await ada.type("#text", "and more")
        assert await ada.evaluate("document.querySelectorAll('#waiting .pending').length") == 2
        await chat.start()

        await wait_texts(ada, "before", "meanwhile", "and more")
        # Who dialled first is chance; what the other said before that comes as history.
        await wait_texts(grace, "before", "meanwhile", "and more")
        await grace.type("#text", "after")
        await wait_texts(ada, "before", "meanwhile", "and more", "after")


async def test_try_now_ends_the_wait(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        await chat.end()
        await ada.until(f"{STATE} === 'closed'")
        await ada.evaluate("Math.random = () => 1; failures = 20; 0")
        # The coming try fails, and the one after it would be a long wait away.
        await ada.until("nextTry - Date.now() > 10_000")
        await chat.start()

        await ada.click("#now")

        await ada.until(f"{STATE} === 'open'")


async def test_a_network_that_has_died_silently_is_found_out(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")

        # Nothing comes any more. The page's own timer would ask in 15 s; here it is asked to, twice.
        await ada.evaluate("window.deaf = ws; ws.onmessage = null; hasHeard = true; beat(); 0")
        assert await ada.evaluate(STATE) == "open"
        await ada.evaluate("beat(); 0")

        await ada.until(f"{STATE} === 'open' && ws !== deaf")


async def test_an_image_arrives_in_the_other_tab(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        grace = await join(browser, chat.page, "Grace")
        (tmp_path / "small.png").write_bytes(png(37, 23))

        await ada.choose_file("#file", tmp_path / "small.png")

        for tab in (ada, grace):
            await tab.until("document.querySelector('#log img')?.naturalWidth === 37")
            assert await tab.evaluate("document.querySelector('#log img').naturalHeight") == 23
            assert tab.complaints() == []


async def test_an_image_that_is_too_large_is_drawn_smaller(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        grace = await join(browser, chat.page, "Grace")
        photo = png(1000, 500, seed=0)
        assert len(photo) > 2**20
        (tmp_path / "photo.png").write_bytes(photo)

        await ada.choose_file("#file", tmp_path / "photo.png")

        await grace.until("document.querySelector('#log img')?.naturalWidth > 0")
        width, height = await grace.evaluate(
            "(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])(document.querySelector('#log img'))"
        )
        assert width == 2 * height


async def test_what_only_calls_itself_an_image_is_refused_and_said_so(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await join(browser, chat.page, "Ada")
        (tmp_path / "page.png").write_text("<script>alert(1)</script>")

        await ada.choose_file("#file", tmp_path / "page.png")

        await ada.until("!document.querySelector('#notice').hidden")
        assert "Refused" in await ada.evaluate("document.querySelector('#notice').textContent")
        assert await ada.evaluate("document.querySelectorAll('#waiting .refused').length") == 1
        assert await ada.evaluate("waiting.size") == 0


async def test_a_page_of_another_origin_is_refused(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser), chatting() as other:
        tab = await browser.open(other.page)

        code = await tab.evaluate(f"""
            new Promise((tell) => {{
                const socket = new WebSocket('{chat.sockets}/lobby?name=Mallory');
                socket.onopen = () => tell('open');
                socket.onclose = (event) => tell(event.code);
            }})
        """)

        assert code == 1006
        told = await tab.until_told(lambda method, _: method == "Network.webSocketFrameError")
        assert "403" in told["errorMessage"]


@pytest.mark.parametrize("size", [PHONE, (390, 844)])
async def test_nothing_is_wider_than_a_phone(tmp_path: Path, size: tuple[int, int]) -> None:
    async with browsing(tmp_path) as (chat, browser):
        ada = await browser.open(chat.page)
        await ada.resize(*size, is_phone=True)
        assert await too_wide(ada, "#ask") == []
        await ada.type("#name", "W" * 24)
        await ada.until(f"{STATE} === 'open'")
        (tmp_path / "wide.png").write_bytes(png(900, 20))
        word = "w" * 300

        await ada.type("#text", word)
        await ada.choose_file("#file", tmp_path / "wide.png")

        await ada.until("document.querySelector('#log img')?.naturalWidth === 900")
        everything = ("#state", "#rooms", "#people", "#talk", ".bubble", "#log img", "#write", "#write .send")
        assert await too_wide(ada, *everything) == []
        await chat.end()
        await ada.until(f"{STATE} === 'closed'")
        assert await too_wide(ada, "#state", "#now", "#write .send") == []


async def too_wide(tab: Tab, *selectors: str) -> list[str]:
    """Give what scrolls sideways, and which of these are not seen whole, from left to right."""
    found: list[str] = await tab.evaluate(f"""
        [
            ...['html', 'body', '#talk'].filter((each) => {{
                const {{scrollWidth, clientWidth}} = document.querySelector(each);
                return scrollWidth > clientWidth;
            }}),
            ...{json.dumps(selectors)}.filter((each) => {{
                const {{left, right}} = document.querySelector(each).getBoundingClientRect();
                return left < 0 || right > innerWidth;
            }}),
        ]
    """)
    return found


async def test_it_is_light_or_dark_as_the_system_is(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (chat, browser):
        tab = await browser.open(chat.page)
        shades = {}
        for scheme in ("light", "dark"):
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            color = await tab.evaluate("getComputedStyle(document.querySelector('.app')).backgroundColor")
            shades[scheme] = sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))

        assert shades["light"] > 600
        assert shades["dark"] < 200
