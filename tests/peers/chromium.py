"""A headless Chromium, driven over its DevTools protocol by a socket of ours, which that tests as well."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

import trio

from tests.peers import find_chromium
from trio_wsprim import Buffer, WebSocket, create_ws

# Seconds for anything that a browser is to do, on a machine that is busy with other things.
PATIENCE: Final = 60
# Seconds for it to end by itself.
_LAST_WORDS: Final = 10
_POLL: Final = 0.05
_SCREENSHOTS: Final = Buffer(max_bytes=64 * 2**20)
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # for root, whom it refuses otherwise; it sees no page but ours
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-extensions",
    "--password-store=basic",
    # No tab counts as hidden, so the timers of none are slowed down.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    # It talks to nobody but us.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-quic",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


class DevToolsError(Exception):
    """The browser refused a command, or a page's script raised."""


@final
class Browser:
    """Sends commands, and hands each answer to the one who has asked."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._numbers = itertools.count(1)
        self._asking: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}

    async def call(self, method: str, *, session: str | None = None, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        command: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        give, take = trio.open_memory_channel[dict[str, Any]](1)
        self._asking[number] = give
        try:
            with trio.fail_after(PATIENCE):
                await self._ws.send(json.dumps(command))
                answer = await take.receive()
        finally:
            del self._asking[number]
        if "error" in answer:
            raise DevToolsError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def read(self) -> None:
        """Read all that it says, until it says no more."""
        async for message in self._ws:
            said = json.loads(message)
            if (asking := self._asking.get(said.get("id"))) is not None:
                asking.send_nowait(said)
            elif (tab := self._tabs.get(said.get("sessionId"))) is not None:
                tab.events.append((said["method"], said["params"]))

    async def open(self, url: str, *, beside: Tab | None = None) -> Tab:
        """Open a page, in a window of somebody new or in one beside another."""
        person = beside.person if beside else (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=person))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self._tabs[session] = Tab(self, session, person)
        await tab.call("Network.enable")
        await tab.call("Log.enable")
        await tab.call("Runtime.enable")
        await tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        await tab.call("Page.navigate", url=url)
        await tab.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return tab


@final
class Tab:
    """One page, and a hand for it.

    Attributes:
        person: Whose window it is; those of one person share what a browser keeps.
        events: What the browser has told about it so far.
    """

    def __init__(self, browser: Browser, session: str, person: str) -> None:
        self._browser = browser
        self._session = session
        self.person = person
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        return await self._browser.call(method, session=self._session, **parameters)

    async def evaluate(self, script: str, *, by_value: bool = True) -> Any:
        given = await self.call("Runtime.evaluate", expression=script, returnByValue=by_value, awaitPromise=True)
        if "exceptionDetails" in given:
            raise DevToolsError(f"{script}: {given['exceptionDetails']}")
        return given["result"].get("value") if by_value else given["result"]

    async def until(self, script: str) -> None:
        """Wait until a condition holds in the page."""
        with trio.move_on_after(PATIENCE):
            while True:
                if await self.evaluate(script):
                    return
                await trio.sleep(_POLL)
        shown = await self.evaluate("document.body.innerText")
        raise AssertionError(f"after {PATIENCE} s, this does not hold: {script}\nThe page shows:\n{shown}")

    async def until_told(self, wanted: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the browser tells something about the page."""
        with trio.fail_after(PATIENCE):
            while True:
                for method, parameters in self.events:
                    if wanted(method, parameters):
                        return parameters
                await trio.sleep(_POLL)

    async def click(self, selector: str) -> None:
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    async def type(self, selector: str, text: str) -> None:
        """Type into a field, and press Enter."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    async def choose_file(self, selector: str, path: Path) -> None:
        field = await self.evaluate(f"document.querySelector({json.dumps(selector)})", by_value=False)
        await self.call("DOM.setFileInputFiles", files=[str(path)], objectId=field["objectId"])

    async def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )

    async def screenshot(self) -> bytes:
        return b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    def complaints(self) -> list[str]:
        """Give what a page's script raised, and what its security policy forbade."""
        raised = [str(said["exceptionDetails"]) for method, said in self.events if method == "Runtime.exceptionThrown"]
        logged = [said["entry"] for method, said in self.events if method == "Log.entryAdded"]
        return raised + [entry["text"] for entry in logged if entry["source"] in {"security", "javascript", "other"}]


@asynccontextmanager
async def chromium(folder: Path) -> AsyncGenerator[Browser]:
    """Run a Chromium with a profile of its own in a folder, and end it, whatever happens."""
    program = find_chromium()
    assert program is not None, "the fixture `chromium_program` skips the test otherwise"
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(_run, program, folder)
        url = await _find_devtools(folder, process)
        async with create_ws(url, max_message_bytes=_SCREENSHOTS.max_bytes, inbox=_SCREENSHOTS) as ws:
            browser = Browser(ws)
            nursery.start_soon(browser.read)
            try:
                yield browser
            finally:
                nursery.cancel_scope.cancel()


async def _run(program: Path, folder: Path, *, task_status: trio.TaskStatus[trio.Process]) -> None:
    with (folder / "chromium.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [program, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that its helpers, too, can be ended by its number
            env={**os.environ, "HOME": str(folder)},
        )
    try:
        task_status.started(process)
        await process.wait()
    finally:
        # Asked first, so that it takes its temporary files with it.
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(_LAST_WORDS):
            await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE):
            await process.wait()


async def _find_devtools(folder: Path, process: trio.Process) -> str:
    """Wait until it has written down where it listens: the port, and the path below that."""
    note = folder / "profile" / "DevToolsActivePort"
    with trio.move_on_after(PATIENCE):
        while process.returncode is None:
            lines = note.read_text().splitlines() if note.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await trio.sleep(_POLL)
    log = (folder / "chromium.log").read_text(errors="replace")
    raise AssertionError(f"Chromium did not start; its exit code is {process.returncode}, and it says:\n{log[-4000:]}")
