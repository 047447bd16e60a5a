import pytest

from trio_wsprim._lifecycle import MOVES, check_close, check_move, is_normal
from trio_wsprim._values import ReadyState


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(ReadyState)


def test_a_pause_ends_with_the_next_dial() -> None:
    check_move(ReadyState.CLOSED, ReadyState.CONNECTING)


def test_a_closing_connection_never_opens_again() -> None:
    with pytest.raises(AssertionError, match="illegal move: CLOSING -> OPEN"):
        check_move(ReadyState.CLOSING, ReadyState.OPEN)


@pytest.mark.parametrize(("code", "expected"), [(1000, True), (1001, True), (1005, True), (1006, False), (4000, False)])
def test_only_expected_ends_are_normal(code: int, expected: bool) -> None:
    assert is_normal(code) is expected


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1011, 3000, 4999])
def test_codes_that_may_be_sent_are_good(code: int) -> None:
    check_close(code, "")


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1012, 1015, 2999, 5000])
def test_codes_that_may_not_be_sent_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"code must be .*, got {code}"):
        check_close(code, "")


@pytest.mark.parametrize("code", [True, 1000.0, "1000", None])
def test_codes_that_are_no_integers_are_refused(code: object) -> None:
    with pytest.raises(TypeError, match="code must be an int, got"):
        check_close(code, "")  # type: ignore[arg-type]


def test_a_reason_may_fill_its_frame() -> None:
    check_close(1000, "é" * 61 + "!")


def test_a_reason_is_measured_in_bytes() -> None:
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, got 124"):
        check_close(1000, "é" * 62)


def test_a_reason_must_be_text() -> None:
    with pytest.raises(TypeError, match="reason must be a str, got bytes"):
        check_close(1000, b"bye")  # type: ignore[arg-type]


def test_a_reason_must_be_encodable() -> None:
    with pytest.raises(ValueError, match="got a lone surrogate"):
        check_close(1000, "\ud800")
