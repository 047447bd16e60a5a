from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trio_wsprim._lifecycle import MAX_REASON_BYTES, MOVES, check_close, check_move
from trio_wsprim._values import ReadyState

states = st.sampled_from(ReadyState)


def is_move(old: ReadyState, new: ReadyState) -> bool:
    try:
        check_move(old, new)
    except AssertionError:
        return False
    return True


@given(old=states, new=states)
def test_the_guard_permits_what_the_table_does(old: ReadyState, new: ReadyState) -> None:
    assert is_move(old, new) == (new in MOVES[old])


@given(data=st.data())
def test_each_opening_of_any_walk_comes_right_after_connecting(data: st.DataObject) -> None:
    walk = [ReadyState.CONNECTING]
    for _ in range(20):
        walk.append(data.draw(st.sampled_from(sorted(MOVES[walk[-1]]))))

    for old, new in pairwise(walk):
        assert old is not new
        assert (new is ReadyState.OPEN) <= (old is ReadyState.CONNECTING)
        assert (old is ReadyState.CLOSED) <= (new is ReadyState.CONNECTING)


@given(code=st.integers(0, 70_000), reason=st.text(st.characters(exclude_categories=[])))
def test_what_may_be_said_in_closing_fits_a_close_frame(code: int, reason: str) -> None:
    try:
        check_close(code, reason)
    except ValueError:
        return
    assert len(code.to_bytes(2) + reason.encode()) <= 2 + MAX_REASON_BYTES
