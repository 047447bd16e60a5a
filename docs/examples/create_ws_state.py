"""`create_ws_state`: the ready state as a signal."""

import trio

from trio_wsprim import ReadyState, create_ws, create_ws_state


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_ws(url) as ws:
        state = create_ws_state(ws)
        print("now:", state.value.name)
        await state.wait_value(ReadyState.OPEN)
        print("now:", state.value.name)
    async for value in state.values():  # the last one is the end of it
        print("now:", value.name)


if __name__ == "__main__":
    trio.run(main)
