"""A request is a handshake, or it is answered with what keeps it from being one, whatever a client sends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.transports.cores import KEY
from trio_wsprim import Rejection, Request
from trio_wsprim._seam import Refused
from trio_wsprim._wire import open_wire
from trio_wsprim.testing import memory_stream_pair
from trio_wsprim.transports._asked import Asked, Doorway

HEADERS = {
    "Host": "example.test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
FRAMES = b"\x81\x85\0\0\0\0hello\x89\x80\0\0\0\0"


def a_request(line: str = "GET /chat HTTP/1.1", **changes: str | None) -> bytes:
    """A handshake, but for changes: names with underscores, and what they are now; `None` for gone."""
    headers: dict[str, str | None] = {
        **HEADERS,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return head(line, *[f"{name}: {value}" for name, value in headers.items() if value is not None])


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def added(*lines: str) -> bytes:
    """A handshake with further lines."""
    return a_request()[:-2] + head(*lines)


@dataclass(frozen=True, slots=True)
class Turned:
    """What became of a client that was turned away.

    Attributes:
        refused: What our side was told.
        answer: What the client read.
    """

    refused: Refused
    answer: bytes

    def read(self, method: str = "GET") -> tuple[h11.Response, bytes]:
        """Read the answer as a client does; it must be one whole answer, and all that came."""
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "-")]))
        client.send(h11.EndOfMessage())
        client.receive_data(self.answer)
        response = client.next_event()
        assert isinstance(response, h11.Response)
        body = b""
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert client.trailing_data[0] == b""
        headers = dict(response.headers)
        assert headers[b"connection"] == b"close"
        assert method == "HEAD" or int(headers[b"content-length"]) == len(body)
        return response, body


async def knock(*pieces: bytes) -> Asked | Turned:
    """Ask in those pieces, say no more, and stay to hear the answer."""
    near, far = memory_stream_pair(2**24)
    for piece in pieces:
        await far.send_all(piece)
    await far.send_eof()
    try:
        return await Doorway(open_wire(near)).read(("192.0.2.1", 1234))
    except Refused as refused:
        near.close()
        answer = b""
        with suppress(trio.BrokenResourceError):  # it was closed over what was not read
            while data := await far.receive_some():
                answer += data
        return Turned(refused, answer)


async def let_in(*pieces: bytes) -> Asked:
    asked = await knock(*pieces)
    assert isinstance(asked, Asked)
    return asked


async def turned_away(*pieces: bytes) -> Turned:
    turned = await knock(*pieces)
    assert isinstance(turned, Turned)
    return turned


# --- handshakes ---


async def test_a_handshake_is_told_as_it_was_asked() -> None:
    asked = await let_in(a_request("GET /chat?a=b HTTP/1.1", Origin="http://a.test", Sec_WebSocket_Protocol="one, two"))
    assert asked.request == Request(
        "/chat?a=b",
        (
            ("host", "example.test"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
            ("origin", "http://a.test"),
            ("sec-websocket-protocol", "one, two"),
        ),
        ("one", "two"),
        ("192.0.2.1", 1234),
    )
    assert asked.rest == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(a_request(Host=""), id="empty host"),
        pytest.param(a_request(Host="[::1]:80"), id="IPv6 host"),
        pytest.param(a_request(Host="a%20b_~!$&'()*+,;=.test:1"), id="curious host"),
        pytest.param(a_request(Upgrade="WebSocket"), id="other case"),
        pytest.param(a_request(Upgrade="h2c , websocket"), id="one of several upgrades"),
        pytest.param(a_request(Connection="keep-alive,\tUPGRADE"), id="one of several connection options"),
        pytest.param(a_request(Content_Length="0"), id="a length of nothing"),
        pytest.param(a_request().replace(b"\r\n", b"\n"), id="bare line feeds"),
        pytest.param(added("X-Latin: \xe9\xff", "X-Utf8: " + "é".encode().decode("latin-1")), id="no ASCII"),
        pytest.param(added("X-Folded: a", "  b"), id="folded line"),
        pytest.param(added("X-Empty:"), id="empty header"),
        pytest.param(added("Connection: close"), id="connection named twice"),
        pytest.param(added("Origin: null"), id="no origin"),
        pytest.param(added("Expect: 100-continue"), id="expectations"),
        pytest.param(added("Sec-WebSocket-Protocol: , ,", 'Sec-WebSocket-Extensions: x; "'), id="odd lists"),
        pytest.param(added(*[f"X-{n}: {n}" for n in range(95)]), id="100 headers"),
        pytest.param(added("X-Long: " + "x" * 16_000), id="a long line"),
    ],
)
async def test_a_handshake_may_be_curious(request_bytes: bytes) -> None:
    assert (await let_in(request_bytes + FRAMES)).rest == FRAMES


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("//a.test/b", "//a.test/b"),
        ("/?a=http://b.test/c", "/?a=http://b.test/c"),
        ("/%00%ff", "/%00%ff"),
        ("http://a.test/b?c", "/b?c"),
        ("HTTP://a.test:80/", "/"),
        ("ws://a.test", "/"),
        ("wss://user@[::1]:443/x", "/x"),
        ("http://a.test?b=/c", "/?b=/c"),
        ("http://", "/"),
        ("http://a.test//b", "//b"),
    ],
)
async def test_a_path_may_come_in_an_absolute_url(target: str, path: str) -> None:
    assert (await let_in(a_request(f"GET {target} HTTP/1.1"))).request.path == path


async def test_subprotocols_are_those_of_all_headers_each_once() -> None:
    asked = await let_in(
        added("Sec-WebSocket-Protocol: one,two", "sec-websocket-protocol: \ttwo , three,,", "Sec-WebSocket-Protocol:")
    )
    assert asked.request.subprotocols == ("one", "two", "three")
    assert asked.subprotocol(()) is None
    assert asked.subprotocol(("four", "One")) is None
    assert asked.subprotocol(("three", "one")) == "three"  # ours has the say
    assert (await let_in(a_request())).request.subprotocols == ()


async def test_a_head_may_come_in_single_bytes_and_frames_behind_it_are_kept() -> None:
    data = a_request()
    asked = await let_in(*[data[at : at + 1] for at in range(len(data))])
    assert asked.request == (await let_in(data)).request
    for cut in range(1, len(data) + len(FRAMES)):
        whole = data + FRAMES
        asked = await let_in(whole[:cut], whole[cut:])
        assert asked.rest == FRAMES


async def test_only_what_came_is_kept() -> None:
    near, far = memory_stream_pair()
    await far.send_all(a_request() + FRAMES[:5])
    wire = open_wire(near)
    assert (await Doorway(wire).read(None)).rest == FRAMES[:5]
    await far.send_all(FRAMES[5:])
    assert await wire.receive_some() == FRAMES[5:]


async def test_many_frames_behind_a_head_do_not_make_it_a_large_one() -> None:
    assert (await let_in(a_request() + FRAMES * 3000)).rest == FRAMES * 3000


# --- the head for a core ---


async def test_a_core_is_shown_what_it_has_to_answer_and_nothing_else() -> None:
    asked = await let_in(
        added(
            "Cookie: s3cret\xff",
            "Connection: keep-alive \x01, s3cret",
            "Sec-WebSocket-Protocol: one, two, \xff",
            "Sec-WebSocket-Extensions: a; b",
            "Sec-WebSocket-Extensions: \xe9",
            "Sec-WebSocket-Other: s3cret",
        )
    )
    lines = [
        b"GET / HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}".encode(),
    ]
    assert asked.plain_head(None, has_extensions=False).split(b"\r\n") == [*lines, b"", b""]
    assert asked.plain_head("two", has_extensions=True).split(b"\r\n") == [
        *lines,
        b"Sec-WebSocket-Protocol: two",
        b"sec-websocket-extensions: a; b",
        b"sec-websocket-extensions: \xe9",
        b"",
        b"",
    ]


# --- what is none ---

UPGRADE = {b"upgrade": b"websocket", b"sec-websocket-version": b"13"}
NOTHING: dict[bytes, bytes] = {}
METHOD = "a WebSocket handshake is a GET"
OTHER = "this is a WebSocket server"
VERSION = "the WebSocket version must be 13"
A_KEY = "the request needs one Sec-WebSocket-Key of 16 bytes"
HOST = "the Host header is malformed"
BODY = "a WebSocket handshake has no body"
BAD = "malformed HTTP"
BROWSER = head(
    "GET /s3cret HTTP/1.1",
    "Host: example.test",
    "Connection: keep-alive",
    "User-Agent: s3cret",
    "Accept: text/html",
    "Cookie: a=s3cret",
)

REFUSALS: dict[str, tuple[bytes, str, int, dict[bytes, bytes]]] = {
    "a browser's page": (BROWSER, OTHER, 426, UPGRADE),
    "no upgrade": (a_request(Upgrade=None), OTHER, 426, UPGRADE),
    "another upgrade": (a_request(Upgrade="h2c, s3cret"), OTHER, 426, UPGRADE),
    "an upgrade like it": (a_request(Upgrade="websocket/13"), OTHER, 426, UPGRADE),
    "no connection": (a_request(Connection=None), OTHER, 426, UPGRADE),
    "connection to keep": (a_request(Connection="keep-alive"), OTHER, 426, UPGRADE),
    "version 8": (a_request(Sec_WebSocket_Version="8"), VERSION, 426, UPGRADE),
    "version s3cret": (a_request(Sec_WebSocket_Version="s3cret"), VERSION, 426, UPGRADE),
    "versions": (a_request(Sec_WebSocket_Version="13, 8"), VERSION, 426, UPGRADE),
    "version twice": (added("Sec-WebSocket-Version: 13"), VERSION, 426, UPGRADE),
    "no version": (a_request(Sec_WebSocket_Version=None), VERSION, 426, UPGRADE),
    "POST": (a_request("POST /s3cret HTTP/1.1"), METHOD, 405, {b"allow": b"GET"}),
    "OPTIONS": (a_request("OPTIONS * HTTP/1.1"), METHOD, 405, {b"allow": b"GET"}),
    "CONNECT": (a_request("CONNECT s3cret:443 HTTP/1.1"), METHOD, 405, {b"allow": b"GET"}),
    "get": (a_request("get / HTTP/1.1"), METHOD, 405, {b"allow": b"GET"}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", METHOD, 405, {b"allow": b"GET"}),
    "HTTP/1.0": (a_request("GET / HTTP/1.0"), "a WebSocket handshake needs HTTP/1.1", 505, NOTHING),
    "HTTP/1.0 without a host": (b"GET / HTTP/1.0\r\n\r\n", "a WebSocket handshake needs HTTP/1.1", 505, NOTHING),
    "HTTP/1.2": (a_request("GET / HTTP/1.2"), "a WebSocket handshake needs HTTP/1.1", 505, NOTHING),
    "any target": (a_request("GET * HTTP/1.1"), "the request names no path", 400, NOTHING),
    "a path without a slash": (a_request("GET s3cret HTTP/1.1"), "the request names no path", 400, NOTHING),
    "a host for a path": (a_request("GET a.test:80 HTTP/1.1"), "the request names no path", 400, NOTHING),
    "no scheme": (a_request("GET ?x://y/s3cret HTTP/1.1"), "the request names no path", 400, NOTHING),
    "host not in ASCII": (a_request(Host="\xff.test"), HOST, 400, NOTHING),
    "host with a space": (a_request(Host="a s3cret"), HOST, 400, NOTHING),
    "host with a path": (a_request(Host="a.test/s3cret"), HOST, 400, NOTHING),
    "host with a user": (a_request(Host="s3cret@a.test"), HOST, 400, NOTHING),
    "host that is markup": (a_request(Host="<s3cret>"), HOST, 400, NOTHING),
    "host with a quote": (a_request(Host='"'), HOST, 400, NOTHING),
    "host with a backslash": (a_request(Host="a\\b"), HOST, 400, NOTHING),
    "host with a control character": (a_request(Host="a\x01"), HOST, 400, NOTHING),
    "no host": (a_request(Host=None), BAD, 400, NOTHING),
    "two hosts": (added("Host: s3cret"), BAD, 400, NOTHING),
    "a body": (a_request(Content_Length="6") + b"s3cret", BODY, 400, NOTHING),
    "a body to come": (a_request(Content_Length="99999999999"), BODY, 400, NOTHING),
    "a body in chunks": (a_request(Transfer_Encoding="chunked") + b"0\r\n\r\n", BODY, 400, NOTHING),
    "both": (a_request(Transfer_Encoding="chunked", Content_Length="0"), BODY, 400, NOTHING),
    "another coding": (a_request(Transfer_Encoding="s3cret"), BAD, 501, NOTHING),
    "no length": (a_request(Content_Length="s3cret"), BAD, 400, NOTHING),
    "two lengths": (a_request(Content_Length="0, 1"), BAD, 400, NOTHING),
    "no key": (a_request(Sec_WebSocket_Key=None), A_KEY, 400, NOTHING),
    "an empty key": (a_request(Sec_WebSocket_Key=""), A_KEY, 400, NOTHING),
    "a key of 15 bytes": (a_request(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAA"), A_KEY, 400, NOTHING),
    "a key of 18 bytes": (a_request(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAAAA"), A_KEY, 400, NOTHING),
    "a key without its end": (a_request(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA"), A_KEY, 400, NOTHING),
    "a key of other letters": (a_request(Sec_WebSocket_Key="s3cret!" + KEY), A_KEY, 400, NOTHING),
    "a key not in ASCII": (a_request(Sec_WebSocket_Key="\xff" * 24), A_KEY, 400, NOTHING),
    "two keys": (added(f"Sec-WebSocket-Key: {KEY}"), A_KEY, 400, NOTHING),
    "101 headers": (added(*[f"X-{n}: s3cret" for n in range(96)]), "more than 100 headers", 431, NOTHING),
    "many headers": (added(*["a:"] * 3000), "more than 100 headers", 431, NOTHING),
    "a large head": (added("X-Long: " + "s3cret" * 3000), BAD, 431, NOTHING),
    "a large line": (a_request("GET /" + "s3cret" * 3000 + " HTTP/1.1"), BAD, 431, NOTHING),
    "a line without an end": (b"GET /" + b"s3cret" * 3000, BAD, 431, NOTHING),
    "bytes": (bytes(range(256)), BAD, 400, NOTHING),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD, 400, NOTHING),
    "SSH": (b"SSH-2.0-OpenSSH_9.2 s3cret\r\n\r\n", BAD, 400, NOTHING),
    "an answer": (b"HTTP/1.1 200 OK\r\n\r\n", BAD, 400, NOTHING),
    "an empty line": (b"\r\n\r\n", BAD, 400, NOTHING),
    "HTTP/0.9": (b"GET /s3cret\r\n\r\n", BAD, 400, NOTHING),
    "a space in the target": (a_request("GET /s3 cret HTTP/1.1"), BAD, 400, NOTHING),
    "a target not in ASCII": (a_request("GET /s3cret\xff HTTP/1.1"), BAD, 400, NOTHING),
    "a header without a colon": (added("s3cret"), BAD, 400, NOTHING),
    "a header without a name": (added(": s3cret"), BAD, 400, NOTHING),
    "a space before the colon": (added("X-One : s3cret"), BAD, 400, NOTHING),
    "a name not in ASCII": (added("\xff: s3cret"), BAD, 400, NOTHING),
    "a null character": (added("X-One: s3\0cret"), BAD, 400, NOTHING),
    "a bare carriage return": (added("X-One: s3\rcret"), BAD, 400, NOTHING),
    "a fold of nothing": (a_request().replace(b"\r\nHost", b"\r\n Host"), BAD, 400, NOTHING),
}


@pytest.mark.parametrize(("data", "sentence", "status", "headers"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_is_no_handshake_is_answered_with_why_and_nothing_of_it_is_quoted(
    data: bytes, sentence: str, status: int, headers: dict[bytes, bytes]
) -> None:
    turned = await turned_away(data)
    response, body = turned.read()
    assert response.status_code == turned.refused.status == status
    assert str(turned.refused) == sentence
    assert body == f"{sentence}\n".encode()
    assert b"s3cret" not in turned.answer
    told = dict(response.headers)
    assert told.pop(b"content-type") == b"text/plain; charset=utf-8"
    assert {name: value for name, value in told.items() if name not in {b"connection", b"content-length"}} == headers
    assert response.reason


@pytest.mark.parametrize("name", ["a large head", "a large line", "many headers", "POST", "TLS"])
async def test_it_is_answered_the_same_if_it_drips_in(name: str) -> None:
    data, _, status, _ = REFUSALS[name]
    turned = await turned_away(*[data[at : at + 1] for at in range(len(data))])
    assert turned.read()[0].status_code in {status, 431}


async def test_a_large_head_is_refused_before_it_has_come_to_its_end() -> None:
    near, far = memory_stream_pair(2**24)
    doorway = Doorway(open_wire(near))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def drip() -> None:
                with suppress(trio.BrokenResourceError):
                    await far.send_all(b"GET / HTTP/1.1\r\nX-Long: ")
                    while True:
                        await far.send_all(b"x" * 100)
                        await trio.lowlevel.checkpoint()

            with pytest.raises(Refused) as caught:
                await doorway.read(None)
            nursery.cancel_scope.cancel()
    assert caught.value.status == 431


async def test_an_answer_to_head_has_no_body() -> None:
    turned = await turned_away(a_request("HEAD / HTTP/1.1"))
    response, body = turned.read("HEAD")
    assert (response.status_code, body) == (405, b"")
    assert turned.answer.endswith(b"\r\n\r\n")
    assert int(dict(response.headers)[b"content-length"]) == len(METHOD) + 1


# --- clients that go away ---


async def test_a_client_that_goes_away_at_any_byte_is_told_nothing() -> None:
    data = a_request()
    for cut in range(len(data)):
        turned = await turned_away(data[:cut])
        assert (str(turned.refused), turned.refused.status, turned.answer) == (
            "the client went away before its request was complete",
            None,
            b"",
        )


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("data", [b"", a_request()[:50]])
async def test_a_client_that_breaks_off_is_one_that_went_away(data: bytes, how: str) -> None:
    near, far = memory_stream_pair()
    await far.send_all(data)
    getattr(far, how)()
    with pytest.raises(Refused, match=r"^the client went away before its request was complete$") as caught:
        await Doorway(open_wire(near)).read(None)
    assert caught.value.status is None


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_does_not_stay_to_hear_why_is_refused_all_the_same(how: str) -> None:
    near, far = memory_stream_pair(10)
    await far.send_all(b"\0\0\r\n\r\n")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def leave() -> None:
            await far.receive_some()
            getattr(far, how)()

        with pytest.raises(Refused, match=r"^malformed HTTP$") as caught:
            await Doorway(open_wire(near)).read(None)
    assert caught.value.status == 400


async def test_a_client_that_says_nothing_is_waited_for(autojump_clock: MockClock) -> None:
    near, _far = memory_stream_pair()
    with trio.move_on_after(1000) as scope:  # the deadline is the caller's
        await Doorway(open_wire(near)).read(None)
    assert scope.cancelled_caught


# --- time for an answer to arrive ---


@pytest.mark.parametrize("talks", [False, True])
async def test_who_is_turned_away_has_a_moment_to_read_why(talks: bool, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    await far.send_all(BROWSER)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def go_on() -> None:
            while talks:
                await far.send_all(b"x" * 10_000)
                await trio.sleep(0.01)

        with pytest.raises(Refused):
            await Doorway(open_wire(near)).read(None)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 0.25


async def test_who_hangs_up_is_not_waited_for(autojump_clock: MockClock) -> None:
    await turned_away(BROWSER)
    assert trio.current_time() == 0


async def test_a_cancelled_answer_is_given_up(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair(20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, BROWSER)
        with trio.move_on_after(5) as scope:
            await Doorway(open_wire(near)).read(None)
    assert scope.cancelled_caught


# --- rejections of the user's ---


async def rejected(rejection: Rejection) -> Turned:
    near, far = memory_stream_pair(2**24)
    await far.send_all(a_request())
    doorway = Doorway(open_wire(near))
    await doorway.read(None)
    await far.send_eof()
    with pytest.raises(Refused) as caught:
        await doorway.reject(rejection, "why")
    near.close()
    answer = b""
    while data := await far.receive_some():
        answer += data
    return Turned(caught.value, answer)


@pytest.mark.parametrize("status", [300, 302, 304, 401, 403, 418, 429, 430, 499, 500, 503, 599])
async def test_a_rejection_is_sent_as_it_is(status: int) -> None:
    body = b"" if status == 304 else b"no\x00\xff" * 30_000
    turned = await rejected(Rejection(status, [("X-One", "1"), ("X-One", "2"), ("Location", "/a\tb")], body))
    response, got = turned.read()
    assert (response.status_code, got) == (status, body)
    assert (str(turned.refused), turned.refused.status) == ("why", status)
    assert response.headers.raw_items()[:3] == [(b"X-One", b"1"), (b"X-One", b"2"), (b"Location", b"/a\tb")]


async def test_a_rejection_goes_out_to_a_client_that_reads_little_by_little() -> None:
    near, far = memory_stream_pair(7)
    answer = b""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            nonlocal answer
            while data := await far.receive_some(3):
                answer += data

        async def refuse() -> None:
            with pytest.raises(Refused):
                await Doorway(open_wire(near)).reject(Rejection(403, (), b"x" * 1000), "why")
            near.close()

        nursery.start_soon(refuse)
        await far.send_eof()
    assert answer.endswith(b"\r\n\r\n" + b"x" * 1000)


# --- anything at all ---

GOOD_LINES = [f"{name}: {value}" for name, value in HEADERS.items()]
lines = st.one_of(
    st.sampled_from(GOOD_LINES),
    st.builds(
        "{}: {}".format,
        st.sampled_from([*HEADERS, "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Protocol", "Expect", "X"]),
        st.sampled_from(["", "0", "chunked", "websocket, h2c", "13", "8", KEY, "a b", "\x0b", "\xa0", "\x85", "é"])
        | st.text(st.characters(max_codepoint=255), max_size=8),
    ),
    st.text(st.characters(max_codepoint=255), max_size=12),
)
first_lines = st.one_of(
    st.just("GET / HTTP/1.1"),
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["GET", "POST", "HEAD", "CONNECT"]) | st.text("AZ\x7f ", max_size=3),
        st.sampled_from(["/", "*", "a:1", "http://a/b", "/\xff"]) | st.text("/:?#a.%\x00é", max_size=6),
        st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "HTTP/11", ""]),
    ),
)


@st.composite
def almost_requests(draw: st.DrawFn) -> bytes:
    """A handshake with some lines more or fewer, and at times a byte that is not what it was."""
    chosen = draw(st.permutations(GOOD_LINES))[draw(st.integers(0, 2)) :] + draw(st.lists(lines, max_size=4))
    data = bytearray(head(draw(first_lines), *chosen) + draw(st.binary(max_size=10)))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=400)
@given(
    data=almost_requests() | st.binary(max_size=100) | st.builds(a_request().__add__, st.binary(max_size=20)),
    cuts=st.lists(st.integers(0, 400), max_size=4),
)
@example(data=b"\r\n" * 10_000, cuts=[])
@example(data=b"\0" * 20_000, cuts=[5])
@example(data=b"GET / HTTP/1.1\r\n" + b" x\r\n" * 5_000, cuts=[3])
def test_any_bytes_are_a_handshake_or_refused(data: bytes, cuts: Sequence[int]) -> None:
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places) if begin < end]

    found = trio.run(knock, *pieces)

    if isinstance(found, Asked):
        assert found.request.path.startswith("/")
        assert found.plain_head(None, has_extensions=True).endswith(b"\r\n\r\n")
        assert found.plain_head(None, has_extensions=True).count(b"\r\n\r\n") == 1
        assert len(found.request.headers) <= 100
        assert isinstance(found.request.query, dict)
        assert data.endswith(found.rest)
    elif found.refused.status is None:
        assert found.answer == b""
    else:
        method = "HEAD" if data.lstrip(b"\r\n").startswith(b"HEAD ") else "GET"
        response, _ = found.read(method if found.answer.endswith(b"\r\n\r\n") else "GET")
        assert response.status_code == found.refused.status
        assert 400 <= response.status_code <= 599
