import base64
import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_wsprim._urls import check_headers, parse_url

fragments = st.sampled_from(
    ["ws://", "WSS://", "http://", "host", "[::1]", "@", ":", "/", "?", "#", "80", "%", "%0a", "["]
)
texts = st.text() | st.lists(fragments | st.text(max_size=2), max_size=8).map("".join)

# A secret that cannot be mistaken for the words around it.
secrets = st.text(string.digits + "!$&'()*+,;=~", min_size=6, max_size=20)
# What goes wrong elsewhere in the url must not bring the secret to light either.
endings = st.sampled_from(
    ["host", "host/path", "host:0", "host:x", "host:", "[::1", "", "a..b", "h%st", "host#f", "h\n"]
)
visible = st.characters(min_codepoint=0x20, exclude_categories=["Cc", "Cs"])


@given(url=texts)
def test_any_text_is_a_url_or_a_value_error(url: str) -> None:
    try:
        target = parse_url(url)
    except ValueError:
        return
    assert target.host
    assert 1 <= target.port <= 65535
    assert target.resource.startswith("/")
    assert parse_url(target.shown.replace("…", "")).host == target.host


@given(secret=secrets, ending=endings, is_user=st.booleans())
def test_user_information_never_shows(secret: str, ending: str, is_user: bool) -> None:
    userinfo = secret if is_user else f"user:{secret}"
    assert_never_shown(secret, f"ws://{userinfo}@{ending}")


@given(secret=secrets, ending=endings, name=st.sampled_from(["", "token=", "a=b&t="]))
def test_the_query_never_shows(secret: str, ending: str, name: str) -> None:
    assert_never_shown(secret, f"ws://{ending}?{name}{secret}")


def assert_never_shown(secret: str, url: str) -> None:
    try:
        target = parse_url(url)
    except ValueError as error:
        told = f"{error!r} {error.__cause__!r} {error.__context__!r}"
    else:
        told = f"{target} {target!r} {target.shown}"
    assert secret not in told


@given(user=st.text(visible), password=st.text(visible))
def test_what_was_percent_encoded_is_what_the_server_reads(user: str, password: str) -> None:
    assume(":" not in user)

    target = parse_url(f"ws://{quote(user, safe='')}:{quote(password, safe='')}@host")

    assert target.authorization is not None
    credentials = base64.b64decode(target.authorization.removeprefix("Basic "))
    assert credentials.decode() == f"{user}:{password}"


@given(secret=secrets, bad=st.sampled_from("\r\n\0\x7fé"))
def test_header_values_never_show(secret: str, bad: str) -> None:
    with pytest.raises(ValueError, match="header 'X-Token' must") as caught:
        check_headers({"X-Token": secret + bad})

    assert secret not in str(caught.value)


@given(name=st.text(), value=st.text())
def test_headers_that_pass_fit_on_one_line(name: str, value: str) -> None:
    try:
        headers = check_headers([(name, value)])
    except ValueError:
        return
    line = ": ".join(*headers)
    assert line.isascii()
    assert line.splitlines() == [line]
