import importlib.util
import math
import ssl
from array import array
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio

from trio_wsprim._make import create_reconnecting_ws, create_ws
from trio_wsprim._options import (
    Heartbeat,
    Options,
    Settings,
    Source,
    as_message,
    ask,
    check_class,
    check_type,
    read_settings,
)
from trio_wsprim._values import Buffer, Event, OpenEvent
from trio_wsprim.transports._trio_websocket import TrioWebsocketTransport

URL = "ws://example.test/"


def read(url: Any = URL, subprotocols: Any = (), **options: Any) -> Settings:
    return read_settings(url, subprotocols, cast("Options", options))


def heartbeat(**options: Any) -> Heartbeat:
    return Heartbeat(**{"message": None, "interval": 1.0, "wait": 1.5, "reply": None, **options})


async def open_stream(host: str, port: int) -> trio.abc.Stream:
    raise NotImplementedError


# ------------------------------------------------------------------------------------ what openers take


def test_the_documented_defaults_hold() -> None:
    settings = read()

    assert settings.headers == settings.subprotocols == ()
    for value in (settings.ssl_context, settings.proxy, settings.open_stream, settings.setup, settings.transport):
        assert value is None
    assert (settings.connect_timeout, settings.close_timeout) == (10.0, 5.0)
    assert settings.max_message_bytes == 2**20
    assert settings.outbox == settings.inbox == Buffer()
    assert (settings.track, settings.confirm_interval) == (False, 0.1)


def test_good_values_are_taken() -> None:
    settings = read(
        "wss://example.test/",
        "chat",
        headers={"X-A": " b "},
        ssl_context=ssl.create_default_context(),
        connect_timeout=None,
        close_timeout=0,
        max_message_bytes=None,
        inbox=None,
        setup=open_stream,
        open_stream=open_stream,
    )

    assert settings.subprotocols == ("chat",)
    assert settings.headers == (("X-A", "b"),)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, -0.001])
@pytest.mark.parametrize("name", ["connect_timeout", "close_timeout", "confirm_interval"])
def test_times_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number of seconds, .*, got {value}"):
        read(**{name: value})


def test_no_time_to_connect_is_refused() -> None:
    with pytest.raises(ValueError, match=r"connect_timeout must be .* more than 0, or None, got 0"):
        read(connect_timeout=0)


def test_message_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_message_bytes must be a whole number, at least 0, .*, got -1"):
        read(max_message_bytes=-1)


def test_a_socket_may_take_none_but_empty_messages() -> None:
    assert read(max_message_bytes=0).message_limit == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connect_timeout", "1"),
        ("connect_timeout", True),
        ("max_message_bytes", 1.5),
        ("confirm_interval", None),
        ("track", 1),
        ("setup", 1),
        ("open_stream", "here"),
        ("ssl_context", True),
        ("outbox", None),
        ("outbox", 5),
        ("inbox", 5),
        ("transport", object()),
        ("proxy", 8080),
        ("headers", "X: y"),
    ],
)
def test_values_of_another_type_are_refused_and_named(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must "):
        read("wss://example.test/", **{name: value})


@pytest.mark.parametrize("names", [["tmieout"], ["retries"], ["a", "b"]])
def test_unknown_options_are_refused_and_named(names: list[str]) -> None:
    with pytest.raises(TypeError, match=f"unknown option {', '.join(names)}"):
        read(**dict.fromkeys(names, 1))


def test_an_option_of_sockets_that_reconnect_is_told_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"unknown option delay, retries \(only a socket that reconnects has it"):
        read(delay=1, retries=1)


def test_a_transport_s_class_is_told_from_an_instance() -> None:
    with pytest.raises(TypeError, match="transport must be an instance, got the class TrioWebsocketTransport"):
        read(transport=TrioWebsocketTransport)


@pytest.mark.parametrize("opener", [create_ws, create_reconnecting_ws])
def test_every_refusal_comes_at_the_call(opener: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="unknown option tmieout"):
        opener(URL, tmieout=1)
    with pytest.raises(ValueError, match="connect_timeout"):
        opener(URL, connect_timeout=0)
    with pytest.raises(ValueError, match="url must"):
        opener("http://example.test/")


def test_an_inbox_cannot_raise_at_its_peer() -> None:
    with pytest.raises(ValueError, match="inbox must not have when_full='error'"):
        read(inbox=Buffer(when_full="error"))


def test_the_largest_message_must_fit_into_the_inbox() -> None:
    with pytest.raises(ValueError, match="max_message_bytes must fit into the inbox's 99 bytes, got 100"):
        read(max_message_bytes=100, inbox=Buffer(max_bytes=99))


@pytest.mark.parametrize(
    ("max_message_bytes", "inbox", "limit"),
    [
        (100, Buffer(max_bytes=100), 100),
        (100, Buffer(max_bytes=None), 100),
        (100, None, 100),
        (None, Buffer(max_bytes=99), 99),
        (None, Buffer(max_bytes=None), None),
        (None, None, None),
    ],
)
def test_the_limit_of_a_message_is_the_explicit_one_or_the_inboxs(
    max_message_bytes: int | None, inbox: Buffer | None, limit: int | None
) -> None:
    assert read(max_message_bytes=max_message_bytes, inbox=inbox).message_limit == limit


def test_a_tls_context_without_tls_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ssl_context is for wss: urls, got 'ws://example\.test/'"):
        read(ssl_context=ssl.create_default_context())


def test_functions_are_kept_and_asked_later() -> None:
    def fail() -> Any:
        raise AssertionError("asked too early")

    settings = read(fail, fail, headers=fail, ssl_context=ssl.create_default_context())

    assert settings.url is settings.subprotocols is settings.headers is fail


def test_a_generator_of_headers_is_read_once_and_kept() -> None:
    settings = read(headers=(pair for pair in [("X-A", "b")]), subprotocols=(name for name in ["a", "b"]))

    assert settings.headers == (("X-A", "b"),)
    assert settings.subprotocols == ("a", "b")


def test_the_repr_tells_no_secrets() -> None:
    settings = read(
        "ws://me:secret@example.test/?token=secret",
        "secret",
        headers={"Authorization": "secret"},
        proxy="http://me:secret@proxy.test:1",
    )

    assert "secret" not in repr(settings)


# ------------------------------------------------------------------------------------ proxy


@pytest.mark.parametrize("proxy", ["http://proxy.test", "http://proxy.test:3128", "socks5://me:pw@[::1]:1080"])
def test_good_proxies_are_taken(proxy: str) -> None:
    assert read(proxy=proxy).proxy == proxy


@pytest.mark.parametrize(
    "proxy",
    ["proxy.test:1", "https://proxy.test:1", "http://", "http://proxy:0", "http://proxy:99999", "http://[secret", ""],
)
def test_other_proxies_are_refused_and_not_quoted(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy must be http://host:port or socks5://host:port, got another url"):
        read(proxy=proxy)


def test_a_proxy_and_a_stream_of_ones_own_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="proxy and open_stream exclude each other"):
        read(proxy="http://proxy.test:1", open_stream=open_stream)


def test_a_proxy_without_the_extra_is_an_import_error_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ImportError, match=r"pip install 'trio-wsprim\[proxy\]'"):
        create_ws(URL, proxy="http://proxy.test:1")


# ------------------------------------------------------------------------------------ Heartbeat


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["interval", "wait"])
def test_heartbeat_times_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number of seconds, more than 0, got {value}"):
        heartbeat(**{name: value})


@pytest.mark.parametrize("name", ["message", "reply"])
def test_heartbeat_messages_are_messages_or_functions(name: str) -> None:
    for value in ("a", b"a", None, len):
        heartbeat(**{name: value})

    with pytest.raises(TypeError, match=f"{name} must be str, bytes, a function or None, got int"):
        heartbeat(**{name: 1})


def test_a_heartbeat_that_cannot_be_sent_is_refused_at_the_call() -> None:
    with pytest.raises(UnicodeEncodeError):
        heartbeat(message="\ud800")


# ------------------------------------------------------------------------------------ ask, as_message, checks


async def test_a_source_is_a_value_or_a_function_sync_or_async() -> None:
    async def later() -> str:
        await trio.lowlevel.checkpoint()
        return "c"

    sources: list[Source[str]] = ["a", lambda: "b", later]

    assert [await ask(source) for source in sources] == ["a", "b", "c"]


async def test_what_a_source_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        await ask(cast("Source[float]", lambda: 1 // 0))


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("text", "text"),
        ("é", "é"),
        ("", ""),
        (b"a", b"a"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"abcd")[::2], b"ac"),
        (memoryview(array("H", [1])), array("H", [1]).tobytes()),
    ],
)
def test_text_goes_as_text_and_bytes_as_binary(given: object, sent: object) -> None:
    message = as_message(given)

    assert message == sent
    assert type(message) is type(sent)


def test_binary_is_copied_at_the_call() -> None:
    given = bytearray(b"a")

    message = as_message(given)
    given[0] = 0

    assert message == b"a"


@pytest.mark.parametrize("given", [None, 1, ["a"], array("B", [1])])
def test_other_types_are_refused(given: object) -> None:
    with pytest.raises(TypeError, match=f"a message must be str, .*, got {type(given).__name__}"):
        as_message(given)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        as_message("a\ud800")


def test_types_are_checked_by_name() -> None:
    check_type("nursery", "a", str)

    with pytest.raises(TypeError, match="nursery must be a Nursery, got NoneType"):
        check_type("nursery", None, trio.Nursery)


@pytest.mark.parametrize("value", [int, OpenEvent(1, None), None])
def test_classes_are_checked_by_their_base(value: object) -> None:
    check_class("event_class", OpenEvent, Event)

    with pytest.raises(TypeError, match="event_class must be a class of Event, got"):
        check_class("event_class", value, Event)
