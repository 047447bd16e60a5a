"""What a client asks for, how it is turned away, and whether it comes from the same origin."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_wsprim import Rejection, Request
from trio_wsprim._request import is_same_origin

# --- requests ---


def test_a_request_tells_path_headers_subprotocols_and_address() -> None:
    request = Request("/chat?a=b", (("host", "example.test"),), ("one", "two"), ("127.0.0.1", 1234))
    assert (request.path, request.headers) == ("/chat?a=b", (("host", "example.test"),))
    assert (request.subprotocols, request.remote) == (("one", "two"), ("127.0.0.1", 1234))
    assert Request("/") == Request("/", (), (), None)


def test_a_request_cannot_be_changed() -> None:
    request = Request("/")
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.path = "/other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/", {}),
        ("/?", {}),
        ("/a?b=c", {"b": ("c",)}),
        ("/?a=1&b=2&a=3", {"a": ("1", "3"), "b": ("2",)}),
        ("/?a=&b", {"a": ("",), "b": ("",)}),
        ("/?a=b%20c+d&%C3%A9=%E2%82%AC", {"a": ("b c d",), "é": ("€",)}),
        ("/?a=b?c=d", {"a": ("b?c=d",)}),
        ("/?a=%FF%zz%", {"a": ("\ufffd%zz%",)}),
        ("/?a;b=c", {"a;b": ("c",)}),
    ],
)
def test_a_query_is_parsed_when_it_is_asked_for(path: str, query: dict[str, tuple[str, ...]]) -> None:
    assert Request(path).query == query


@given(st.text(st.characters(max_codepoint=255)))
@example("&" * 16_000)
@example("=&" * 8_000)
@example("a=%" * 5_000)
def test_any_query_can_be_parsed(query: str) -> None:
    found = Request(f"/?{query}").query
    assert all(isinstance(value, str) for values in found.values() for value in values)


def test_a_header_is_found_whatever_the_case_of_its_name() -> None:
    request = Request("/", (("cookie", "a=b"), ("x-one", "first"), ("x-one", "second")))
    assert request.header("Cookie") == request.header("cookie") == request.header("COOKIE") == "a=b"
    assert request.header("X-One") == "first"
    assert request.header("x-two") is None


def test_what_is_shown_holds_no_secrets() -> None:
    request = Request("/chat?token=s3cret", (("authorization", "s3cret"),), ("s3cret",), ("192.0.2.1", 80))
    assert repr(request) == str(request) == "<Request '/chat' from 192.0.2.1:80>"
    assert request.shown_path == "/chat"


@pytest.mark.parametrize(
    ("remote", "shown"),
    [(None, "nowhere"), (("192.0.2.1", 80), "192.0.2.1:80"), (("2001:db8::1", 80), "[2001:db8::1]:80")],
)
def test_an_address_is_shown_as_urls_have_it(remote: tuple[str, int] | None, shown: str) -> None:
    assert Request("/", remote=remote).shown_remote == shown


# --- rejections ---


@pytest.mark.parametrize("status", [300, 304, 400, 403, 426, 503, 599])
def test_a_rejection_has_a_status_that_is_no_welcome(status: int) -> None:
    rejection = Rejection(status)
    assert (rejection.status, rejection.headers, rejection.body) == (status, (), b"")


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 200, 204, 299, 600, 1000])
def test_any_other_status_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=rf"^status must be .*, got {status}$"):
        Rejection(status)


@pytest.mark.parametrize("status", ["403", 403.0, None, True])
def test_a_status_is_a_number(status: object) -> None:
    with pytest.raises(TypeError, match=r"^status must be"):
        Rejection(status)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", ["text", bytearray(b"x"), None])
def test_a_body_is_bytes(body: object) -> None:
    with pytest.raises(TypeError, match=r"^body must be bytes, got "):
        Rejection(403, (), body)  # type: ignore[arg-type]


def test_a_304_has_no_body() -> None:
    with pytest.raises(ValueError, match=r"^a 304 has no body"):
        Rejection(304, (), b"x")


@pytest.mark.parametrize("headers", [{"X-One": " 1 "}, [("X-One", "1")], (("X-One", "1\t"),)])
def test_headers_are_pairs_or_a_mapping(headers: dict[str, str]) -> None:
    assert Rejection(401, headers).headers == (("X-One", "1"),)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-One": "a\r\nSet-Cookie: b"},
        {"X-One\r\nSet-Cookie": "b"},
        {"X-One": "\x00"},
        {"X-One": "é"},
        {"X One": "1"},
        {"": "1"},
        {"Content-Length": "5"},
        {"connection": "keep-alive"},
        {"Transfer-Encoding": "chunked"},
        {"Sec-WebSocket-Accept": "x"},
    ],
)
def test_headers_that_would_change_the_answer_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        Rejection(401, headers)


@pytest.mark.parametrize("headers", ["X-One: 1", [("X-One",)], [("X-One", 1)], 5])
def test_headers_that_are_none_are_refused(headers: object) -> None:
    with pytest.raises(TypeError, match=r"^headers must be"):
        Rejection(401, headers)  # type: ignore[arg-type]


def test_rejections_are_values() -> None:
    rejection = Rejection(503, {"Retry-After": "5"}, b"later")
    assert rejection == Rejection(503, [("Retry-After", "5")], b"later")
    assert pickle.loads(pickle.dumps(rejection)) == rejection


# --- origins ---


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.test", "example.test"),
        ("https://example.test", "example.test"),
        ("http://example.test", "example.test:80"),
        ("https://example.test", "example.test:443"),
        ("http://example.test:80", "example.test"),
        ("https://example.test:443", "example.test"),
        ("http://example.test:8000", "example.test:8000"),
        ("http://example.test:08000", "example.test:8000"),
        ("HTTP://EXAMPLE.test", "example.TEST"),
        ("ws://example.test", "example.test:80"),
        ("wss://example.test", "example.test:443"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("http://[::1]:5000", "[::1]:5000"),
        ("http://[::1]", "[::1]:80"),
        ("http://[2001:DB8::A]:1", "[2001:db8::a]:1"),
        ("http://xn--bcher-kva.test", "xn--bcher-kva.test"),
        ("http://under_score.test", "under_score.test"),
    ],
)
def test_host_and_port_make_an_origin_the_same(origin: str, host: str) -> None:
    assert is_same_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.test", "example.test"),
        ("http://example.test", "example.test:443"),
        ("https://example.test", "example.test:80"),
        ("http://example.test:8000", "example.test:8001"),
        ("http://example.test:8000", "example.test"),
        ("http://sub.example.test", "example.test"),
        ("http://example.test.evil.test", "example.test"),
        ("http://example.test@evil.test", "example.test"),
        ("http://evil.test@example.test", "example.test"),
        ("http://evil.test#example.test", "example.test"),
        ("http://evil.test?example.test", "example.test"),
        ("http://example.test/", "example.test"),
        ("http://example.test/evil", "example.test/evil"),
        ("http://example.test ", "example.test"),
        ("http://example.test\n", "example.test"),
        ("http://example.test http://evil.test", "example.test"),
        ("http://example.test", "example.test, evil.test"),
        ("http://example.test,http://evil.test", "example.test"),
        ("http://example.test:", "example.test"),
        ("http://example.test:80:80", "example.test"),
        ("http://example.test:x", "example.test:x"),
        ("http://example.test:-1", "example.test:-1"),
        ("http://example.test:999999", "example.test:999999"),
        ("http://example.test:٨٠", "example.test:80"),
        ("http://[::1]", "::1"),
        ("http://::1", "[::1]"),
        ("http://[::1", "[::1"),
        ("http://[]", "[]"),
        ("http://[::1]x", "[::1]x"),
        ("null", "null"),
        ("null", "example.test"),
        ("null", ""),
        ("", ""),
        ("://", ""),
        ("http://", ""),
        ("http:// ", " "),
        ("http:example.test", "example.test"),
        ("//example.test", "example.test"),
        ("example.test", "example.test"),
        ("file://", ""),
        ("file://example.test", "example.test"),
        ("chrome-extension://example.test", "example.test"),
        ("javascript://example.test", "example.test"),
        ("http://example.test", ""),
        ("http://*", "*.test"),
    ],
)
def test_anything_else_is_foreign(origin: str, host: str) -> None:
    assert not is_same_origin(origin, host)


places = st.text("ab.:[]80 @/\\#?%é\x00\n", max_size=6)


@given(origin=st.text() | places.map("http://".__add__) | places.map("https://".__add__), host=st.text() | places)
def test_no_text_makes_it_raise(origin: str, host: str) -> None:
    if is_same_origin(origin, host):
        assert not set(" \n@/#?\\") & set(host)


@given(
    name=st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True) | st.ip_addresses(v=6).map("[{}]".format),
    port=st.none() | st.integers(0, 65535),
    scheme=st.sampled_from(["http", "https"]),
)
def test_what_a_browser_sends_to_where_its_page_is_from_is_the_same(name: str, port: int | None, scheme: str) -> None:
    place = name if port is None else f"{name}:{port}"
    assert is_same_origin(f"{scheme}://{place}", place)
    assert not is_same_origin(f"{scheme}://x{place}", place)
    assert not is_same_origin(f"{scheme}://{place}", f"x{place}")
