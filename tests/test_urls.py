import base64
from typing import Any

import pytest

from trio_wsprim._urls import check_headers, check_subprotocols, parse_url


def decoded(authorization: str | None) -> str:
    assert authorization is not None
    kind, _, credentials = authorization.partition(" ")
    assert kind == "Basic"
    return base64.b64decode(credentials).decode()


@pytest.mark.parametrize(
    ("url", "host", "port", "secure", "resource", "host_header"),
    [
        ("ws://host", "host", 80, False, "/", "host"),
        ("wss://host", "host", 443, True, "/", "host"),
        ("WSS://Host.Example./A", "host.example.", 443, True, "/A", "host.example."),
        ("ws://host:443/", "host", 443, False, "/", "host:443"),
        ("wss://host:443/", "host", 443, True, "/", "host"),
        ("ws://host:00080/", "host", 80, False, "/", "host"),
        ("ws://127.0.0.1:65535/", "127.0.0.1", 65535, False, "/", "127.0.0.1:65535"),
        ("ws://[::1]/", "::1", 80, False, "/", "[::1]"),
        ("ws://[2001:DB8::1]:81", "2001:db8::1", 81, False, "/", "[2001:db8::1]:81"),
        ("ws://host?a=b", "host", 80, False, "/?a=b", "host"),
        ("ws://host/a/%20b?c=d/?e@f", "host", 80, False, "/a/%20b?c=d/?e@f", "host"),
        ("ws://my_container", "my_container", 80, False, "/", "my_container"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, secure: bool, resource: str, host_header: str) -> None:
    target = parse_url(url)

    assert (target.host, target.port, target.secure) == (host, port, secure)
    assert (target.resource, target.host_header) == (resource, host_header)
    assert target.authorization is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://host", "ws://host"),
        ("ws://host:81/path", "ws://host:81/path"),
        ("wss://user:pw@host/path?token=t", "wss://host/path?…"),
        ("wss://host?", "wss://host?…"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    target = parse_url(url)

    assert target.shown == shown
    assert repr(target) == f"Target(shown='{shown}')"


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:pass", "user:pass"),
        ("user", "user:"),
        (":pass", ":pass"),
        ("user:pa:ss", "user:pa:ss"),
        ("user:p%40ss%2F", "user:p@ss/"),
        ("us@er:p@ss", "us@er:p@ss"),
        ("%C3%BCser:%E2%82%AC", "üser:€"),
    ],
)
def test_user_and_password_become_basic_auth(userinfo: str, credentials: str) -> None:
    assert decoded(parse_url(f"ws://{userinfo}@host").authorization) == credentials


def test_empty_user_information_is_none() -> None:
    assert parse_url("ws://@host").authorization is None


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("", "got no scheme"),
        ("host/path", "got no scheme"),
        ("ws:host", "got no scheme"),
        ("ws:/host", "got no scheme"),
        ("us:er://host", "got no scheme"),
        ("http://host", "got http://"),
        ("ws://host#", "got a '#'"),
        ("ws://host/#part", "got a '#'"),
        ("ws://", "must name a host, got none"),
        ("ws:///path", "must name a host, got none"),
        ("ws://:80", "must name a host, got none"),
        ("ws://user@/", "must name a host, got none"),
        ("ws://ho%20st", "letters, digits"),
        ("ws://ho]st", "letters, digits"),
        ("ws://a..b", "the shortest 0"),
        ("ws://.", "the shortest 0"),
        (f"ws://{'a' * 64}", "the longest part 64"),
        (f"ws://{'a.' * 127}", "got 254 characters"),
        ("ws://[::1", "IPv6"),
        ("ws://[]", "IPv6"),
        ("ws://[127.0.0.1]", "IPv6"),
        ("ws://[fe80::1%25eth0]", "IPv6"),
        ("ws://[::1]80", "port"),
        ("ws://[::1]:", "port"),
        ("ws://host:", "port"),
        ("ws://host:x", "port"),
        ("ws://host:-1", "port"),
        ("ws://::1", "host"),
        ("ws://host:0", "from 1 to 65535, got 0"),
        ("ws://host:65536", "from 1 to 65535, got 65536"),
        ("ws://host:123456", "port"),
        (" ws://host", "got a space at index 0"),
        ("ws://host/\n", "got a control character at index 10"),
        ("ws://host/\x7f", "got a control character"),
        ("ws://hö", "got a non-ASCII character"),
        ("ws://host\\@evil", "got a backslash"),
        ("ws://us%3Aer:pw@host", "without ':'"),
        ("ws://user:%0D%0A@host", "control characters"),
        ("ws://%7F@host", "control characters"),
        ("ws://user:%FF@host", "UTF-8"),
    ],
)
def test_bad_urls_are_refused_with_a_sentence(url: str, got: str) -> None:
    with pytest.raises(ValueError, match=r"^url must ") as caught:
        parse_url(url)

    assert got in str(caught.value)


@pytest.mark.parametrize("url", [b"ws://host", None, 80])
def test_a_url_must_be_text(url: Any) -> None:
    with pytest.raises(TypeError, match="url must be a str, got"):
        parse_url(url)


@pytest.mark.parametrize(
    "headers",
    [
        [("X-One", "1"), ("x-two", " \ta b\t")],
        (["X-One", "1"], ["x-two", "a b"]),
        {"X-One": "1", "x-two": "a b"},
        iter([("X-One", "1"), ("x-two", "a b")]),
    ],
)
def test_headers_may_be_pairs_or_a_mapping(headers: Any) -> None:
    assert check_headers(headers) == (("X-One", "1"), ("x-two", "a b"))


def test_no_headers_are_fine() -> None:
    assert check_headers(()) == ()


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("", "''… must be a token (RFC 9110, 5.6.2), got an empty one"),
        ("Token: s3cret", "'Token'… must be a token (RFC 9110, 5.6.2), got ':' at index 5"),
        ("X\r\nY", "got '\\r' at index 1"),
        ("Ünicode", "got '\\xdc' at index 0"),
    ],
)
def test_header_names_must_be_tokens(name: str, got: str) -> None:
    with pytest.raises(ValueError, match=r"^header name ") as caught:
        check_headers([(name, "s3cret")])

    assert got in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "CONNECTION",
        "upgrade",
        "Content-Length",
        "transfer-encoding",
        "Sec-WebSocket-Key",
        "sec-websocket-anything",
    ],
)
def test_headers_of_the_handshake_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"header '{name}' belongs to the handshake"):
        check_headers([(name, "x")])


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("s3cret\r\nX: y", "a control character at index 6"),
        ("s3cret\x00", "a control character"),
        ("s3cret\x7f", "a control character"),
        ("s3crét", "a non-ASCII character at index 4"),
    ],
)
def test_header_values_must_be_visible_ascii(value: str, got: str) -> None:
    with pytest.raises(ValueError, match=f"header 'X-Token' must have .* got {got}") as caught:
        check_headers([("X-Token", value)])

    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        "X-Token: s3cret",
        b"s3cret",
        None,
        ["s3"],
        [("s3cret",)],
        [("X-Token", "s3cret", "more")],
        [("X-Token", b"s3cret")],
        [(b"X-Token", "s3cret")],
        {"X-Token": 3},
        3,
    ],
)
def test_headers_of_another_shape_are_refused(headers: Any) -> None:
    with pytest.raises(TypeError, match="headers must be pairs of str, got") as caught:
        check_headers(headers)

    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("given", [["chat", "v2.json"], ("chat", "v2.json")])
def test_subprotocols_keep_their_order(given: Any) -> None:
    assert check_subprotocols(given) == ("chat", "v2.json")


def test_a_single_subprotocol_may_be_plain_text() -> None:
    assert check_subprotocols("chat") == ("chat",)


def test_no_subprotocols_are_fine() -> None:
    assert check_subprotocols(()) == ()


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ("", "number 1 must be a token (RFC 9110, 5.6.2), got an empty one"),
        (["chat", "a b"], "number 2 must be a token (RFC 9110, 5.6.2), got ' ' at index 1"),
        ("chat, superchat", "got ',' at index 4"),
        (["a", "b", "a"], "subprotocols must differ, got number 3 twice"),
    ],
)
def test_bad_subprotocols_are_refused(given: Any, got: str) -> None:
    with pytest.raises(ValueError, match=r"^subprotocol") as caught:
        check_subprotocols(given)

    assert got in str(caught.value)


@pytest.mark.parametrize("given", [b"chat", [b"chat"], None, 3, [None]])
def test_subprotocols_of_another_type_are_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="subprotocols must be"):
        check_subprotocols(given)
