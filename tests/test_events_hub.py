import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_wsprim._events_hub import EventsHub
from trio_wsprim._values import ConnectEvent, EndEvent, Event, MessageEvent, OpenEvent

OPEN = OpenEvent(1, None)
HELLO = MessageEvent("hello")
END = EndEvent(None)


def all_of(receiver: trio.MemoryReceiveChannel[Event]) -> list[Event]:
    events: list[Event] = []
    while True:
        try:
            events.append(receiver.receive_nowait())
        except trio.WouldBlock:
            return events


async def test_a_watcher_sees_everything_from_then_on_in_order() -> None:
    hub = EventsHub()
    hub.emit(ConnectEvent(1, "ws://a/"))

    async with hub.watch(10, "drop_oldest") as receiver:
        hub.emit(OPEN)
        hub.emit(HELLO)
        hub.emit(END)
        hub.end()

        assert [event async for event in receiver] == [OPEN, HELLO, END]


async def test_messages_that_come_together_are_an_event_each() -> None:
    hub = EventsHub()
    message, latest = hub.latest(MessageEvent), hub.latest(Event)
    other = hub.latest(OpenEvent)

    async with hub.watch(10, "drop_oldest") as receiver:
        hub.emit(OPEN)
        hub.emit_messages(["a", b"b"])
        hub.end()

        assert [event async for event in receiver] == [OPEN, MessageEvent("a"), MessageEvent(b"b")]
    assert message.value == latest.value == MessageEvent(b"b")
    assert other.value == OPEN


@pytest.mark.parametrize("number", [1, 2, 3, 4, 50])
async def test_of_messages_that_come_together_those_are_dropped_that_would_be_of_single_ones(number: int) -> None:
    hub, single = EventsHub(), EventsHub()
    messages = [str(each) for each in range(number)]

    for size in (1, 3):
        async with (
            hub.watch(size, "drop_oldest") as latest,
            hub.watch(size, "drop_newest") as earliest,
            single.watch(size, "drop_oldest") as single_latest,
            single.watch(size, "drop_newest") as single_earliest,
        ):
            hub.emit_messages(messages)
            for message in messages:
                single.emit(MessageEvent(message))

            assert all_of(latest) == all_of(single_latest)
            assert all_of(earliest) == all_of(single_earliest)


@pytest.mark.parametrize("number", [1, 2, 3, 50])
async def test_a_watcher_that_waits_gets_the_first_of_messages_that_come_together(
    number: int, nursery: trio.Nursery
) -> None:
    hub = EventsHub()
    got: list[Event] = []

    async with hub.watch(2, "drop_oldest") as receiver:

        async def take() -> None:
            got.append(await receiver.receive())

        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        hub.emit_messages([str(each) for each in range(number)])
        await wait_all_tasks_blocked()

        assert got == [MessageEvent("0")]
        assert all_of(receiver) == [MessageEvent(str(each)) for each in range(max(1, number - 2), number)]


async def test_who_waits_for_an_event_sees_each_of_those_that_come_together(nursery: trio.Nursery) -> None:
    hub = EventsHub()
    got: list[MessageEvent | None] = []

    async def wait() -> None:
        got.append(await hub.latest(MessageEvent).wait_value(MessageEvent("b")))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    hub.emit_messages(["a", "b", "c"])
    await wait_all_tasks_blocked()

    assert got == [MessageEvent("b")]
    assert hub.latest(MessageEvent).value == MessageEvent("c")


async def test_each_watcher_has_a_channel_of_its_own() -> None:
    hub = EventsHub()

    async with hub.watch(1, "drop_oldest") as latest, hub.watch(1, "drop_newest") as earliest:
        hub.emit(OPEN)
        hub.emit(HELLO)

        assert (latest.receive_nowait(), earliest.receive_nowait()) == (HELLO, OPEN)


async def test_a_watcher_that_has_left_is_forgotten() -> None:
    hub = EventsHub()

    async with hub.watch(1, "drop_oldest") as receiver:
        assert hub.is_watched
    hub.emit(OPEN)

    assert not hub.is_watched
    with pytest.raises(trio.ClosedResourceError):
        receiver.receive_nowait()


async def test_a_watcher_that_closes_its_channel_inside_the_block_disturbs_nobody() -> None:
    hub = EventsHub()

    async with hub.watch(1, "drop_oldest") as gone, hub.watch(1, "drop_oldest") as there:
        gone.close()
        hub.emit(OPEN)

        assert there.receive_nowait() == OPEN


async def test_a_watcher_that_comes_after_the_end_finds_the_end() -> None:
    hub = EventsHub()
    hub.end()

    async with hub.watch(1, "drop_oldest") as receiver:
        assert [event async for event in receiver] == []


async def test_a_watchers_error_comes_out_as_it_is() -> None:
    hub = EventsHub()
    error = ValueError("theirs")

    with pytest.raises(ValueError, match="theirs") as caught:
        async with hub.watch(1, "drop_oldest"):
            raise error

    assert caught.value is error
    assert not hub.is_watched


def test_a_signal_tells_the_latest_event_of_its_kind_only() -> None:
    hub = EventsHub()
    signal = hub.latest(MessageEvent)

    assert signal.value is None
    hub.emit(HELLO)
    hub.emit(OPEN)

    assert signal.value == HELLO
    assert hub.is_watched


def test_a_signal_of_the_base_class_tells_every_event() -> None:
    hub = EventsHub()
    signal = hub.latest(Event)

    hub.emit(HELLO)
    hub.emit(OPEN)

    assert signal.value == OPEN


def test_one_kind_has_one_signal() -> None:
    hub = EventsHub()

    assert hub.latest(OpenEvent) is hub.latest(OpenEvent)


async def test_a_signal_wakes_who_waits_for_it(nursery: trio.Nursery) -> None:
    hub = EventsHub()
    got: list[Event | None] = []

    async def wait() -> None:
        got.append(await hub.latest(EndEvent).wait_value(lambda event: event is not None))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    hub.emit(END)
    hub.end()
    await wait_all_tasks_blocked()

    assert got == [END]


async def test_signals_end_with_the_socket_and_those_made_later_have_ended_already() -> None:
    hub = EventsHub()
    early = hub.latest(OpenEvent)
    hub.end()

    for signal in (early, hub.latest(MessageEvent)):
        with pytest.raises(trio.EndOfChannel):
            await signal.wait_value(lambda event: event is not None)
