"""The pulse, driven as `_heart` drives it: by a program of what the peer, the network and the reader do."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsprim._pulse import Pulse, Verdict

# Whole numbers of quarter seconds, so that sums are exact.
seconds = st.integers(1, 40).map(lambda quarters: quarters / 4)
deeds = st.sampled_from(["hear", "move", "send", "stand", "go", "nothing"])
programs = st.lists(st.tuples(seconds, deeds), max_size=40)


@dataclass
class Body:
    """A connection with a heart, and a second book of what the heart should know."""

    interval: float
    wait: float
    now: float = 0.0
    heard_at: float = 0.0
    moved_at: float = 0.0
    pending: bool = False  # a beat has not left yet
    silence: float = 0.0  # since the last byte, or the last beat's departure, with the clock going
    beat: bool = False
    verdicts: list[Verdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.interval, self.wait, 0.0)
        self.due = self.interval

    def live(self, duration: float) -> bool:
        """Let time go by, waking when the heart asked for it; `False` once the peer is found dead."""
        until = self.now + duration
        while not self.pulse.stands and self.due <= until:
            self._pass(self.due)
            if not self.judge():
                return False
        self._pass(until)
        return True

    def _pass(self, until: float) -> None:
        if not self.pulse.stands:
            self.silence += until - self.now
        self.now = until

    def judge(self) -> bool:
        verdict, due = self.pulse.judge(self.now, self.heard_at, self.moved_at)
        self.verdicts.append(verdict)
        if verdict is Verdict.WAIT:
            assert due > self.now, "asks again at once, for ever"
        if verdict is Verdict.BEAT:
            assert not self.beat
            assert self.silence >= self.interval
            self.beat, self.pending, self.silence = True, True, 0.0
        if verdict is Verdict.DEAD:
            assert self.beat
            assert self.silence >= self.wait
        self.due = due
        return verdict is not Verdict.DEAD

    def hear(self) -> None:
        if not self.pulse.stands:
            self.heard_at, self.silence, self.beat = self.now, 0.0, False

    def move(self) -> None:
        self.moved_at = self.now
        if self.beat and self.pending:
            self.silence = 0.0

    def send(self) -> None:
        self.move()
        if self.pending:
            if self.beat:
                self.silence = 0.0
            self.pending = False
            self.pulse.sent(self.now)

    def stand(self) -> None:
        if not self.pulse.stands:
            self.pulse.stand(self.now, self.heard_at, self.moved_at)

    def go(self) -> None:
        if self.pulse.stands:
            self.pulse.go(self.now, self.moved_at)
            self.due = self.now

    def nothing(self) -> None:
        pass


@settings(max_examples=500)  # the faults found so far were rare
@given(interval=seconds, wait=seconds, program=programs)
def test_no_beat_and_no_death_come_before_their_time(
    interval: float, wait: float, program: list[tuple[float, str]]
) -> None:
    body = Body(interval, wait)
    for duration, deed in program:
        if not body.live(duration):
            return
        getattr(body, deed)()


@settings(max_examples=500)  # the faults found so far were rare
@given(interval=seconds, wait=seconds, program=programs)
def test_a_peer_that_falls_silent_is_found_dead_in_time(
    interval: float, wait: float, program: list[tuple[float, str]]
) -> None:
    body = Body(interval, wait)
    for duration, deed in program:
        if not body.live(duration):
            return
        getattr(body, deed)()
    body.go()

    is_alive = body.live(interval + wait)

    assert not is_alive


@given(interval=seconds, wait=seconds, gaps=st.lists(seconds, max_size=30))
def test_a_peer_that_answers_each_beat_lives_for_ever(interval: float, wait: float, gaps: list[float]) -> None:
    body = Body(interval, wait)
    for gap in gaps:
        assert body.live(min(gap, wait / 2))
        body.send()
        body.hear()

    assert Verdict.DEAD not in body.verdicts
