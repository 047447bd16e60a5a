from trio_wsprim._pulse import Pulse, Verdict

WAIT, BEAT, DEAD = Verdict.WAIT, Verdict.BEAT, Verdict.DEAD


def pulse(interval: float = 10, wait: float = 3) -> Pulse:
    return Pulse(interval, wait, now=0)


def test_silence_for_the_interval_is_when_to_beat() -> None:
    heart = pulse()

    assert heart.judge(9, heard_at=0, moved_at=0) == (WAIT, 10)
    assert heart.judge(10, heard_at=0, moved_at=0) == (BEAT, 13)


def test_a_byte_makes_the_interval_start_over() -> None:
    heart = pulse()

    assert heart.judge(10, heard_at=8, moved_at=0) == (WAIT, 18)


def test_what_we_send_ourselves_puts_nothing_off() -> None:
    assert pulse().judge(10, heard_at=0, moved_at=9.9) == (BEAT, 13)


def test_silence_after_the_beat_is_death() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.sent(10)

    assert heart.judge(12.9, 0, 10) == (WAIT, 13)
    assert heart.judge(13, 0, 10) == (DEAD, 13)


def test_a_wait_longer_than_the_interval_does_not_put_off_the_beat_after_an_answer() -> None:
    heart = pulse(interval=2, wait=10)
    assert heart.judge(2, 0, 0) == (BEAT, 4)
    heart.sent(2)
    assert heart.judge(4, 0, 2) == (WAIT, 6)

    assert heart.judge(6, heard_at=4.5, moved_at=2) == (WAIT, 6.5)
    assert heart.judge(6.5, heard_at=4.5, moved_at=2) == (BEAT, 8.5)


def test_any_byte_after_the_beat_is_life() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.sent(10)

    assert heart.judge(13, heard_at=12.5, moved_at=10) == (WAIT, 22.5)
    assert heart.judge(22.5, heard_at=12.5, moved_at=10) == (BEAT, 25.5)


def test_a_byte_in_the_very_moment_of_the_beat_is_life() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.sent(10)

    assert heart.judge(13, heard_at=10, moved_at=10) == (WAIT, 20)


def test_the_wait_begins_when_the_beat_has_left() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)

    heart.sent(12)

    assert heart.judge(13, 0, 12) == (WAIT, 15)


def test_a_beat_that_leaves_after_life_was_heard_begins_nothing() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.judge(11, heard_at=11, moved_at=0)

    heart.sent(12)

    assert heart.judge(15, 11, 12) == (WAIT, 21)


def test_a_beat_behind_a_write_that_gets_on_is_not_the_peers_fault() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)

    assert heart.judge(13, 0, moved_at=12) == (WAIT, 15)
    assert heart.judge(15, 0, moved_at=14.5) == (WAIT, 17.5)


def test_a_beat_behind_a_write_that_does_not_get_on_is() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)

    assert heart.judge(13, 0, moved_at=5) == (DEAD, 13)


def test_once_the_beat_has_left_other_writes_do_not_matter() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.sent(10)

    assert heart.judge(13, 0, moved_at=12.9) == (DEAD, 13)


def test_the_clock_stands_while_we_do_not_read() -> None:
    heart = pulse()

    heart.stand(4, heard_at=2, moved_at=0)
    assert heart.stands
    heart.go(104, moved_at=0)

    assert not heart.stands
    assert heart.judge(104, heard_at=2, moved_at=0) == (WAIT, 112)


def test_the_clock_of_an_unanswered_beat_stands_too() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.sent(10)

    heart.stand(11, heard_at=0, moved_at=0)
    heart.go(20, moved_at=0)

    assert heart.judge(21.9, 0, 10) == (WAIT, 22)
    assert heart.judge(22, 0, 10) == (DEAD, 22)


def test_a_beat_that_leaves_while_the_clock_stands_has_its_wait_from_when_it_goes_on() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.stand(11, heard_at=0, moved_at=0)
    heart.sent(15)
    heart.go(20, moved_at=0)

    assert heart.judge(20, 0, 15) == (WAIT, 23)


def test_what_was_heard_just_before_the_stand_answers_the_beat() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.sent(10)

    heart.stand(12, heard_at=11, moved_at=0)
    heart.go(50, moved_at=0)

    assert heart.judge(50, heard_at=11, moved_at=10) == (WAIT, 59)


def test_a_write_that_gets_on_before_or_during_a_stand_counts_by_the_clock_that_stood() -> None:
    heart = pulse()
    heart.judge(10, 0, 0)
    heart.stand(12.5, heard_at=0, moved_at=12)
    heart.go(100, moved_at=12)
    assert heart.judge(100, 0, moved_at=12) == (WAIT, 102.5)

    heart.stand(101, heard_at=0, moved_at=12)
    heart.go(200, moved_at=150)

    assert heart.judge(200, 0, moved_at=150) == (WAIT, 203)
