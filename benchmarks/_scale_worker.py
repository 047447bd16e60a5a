"""A contender's process: it serves until it is ended, and says where.

Run as `python -m benchmarks._scale_worker NAME [BEAT]`.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import partial

from benchmarks import _scale_servers
from benchmarks._scale_servers import House
from benchmarks._scale_words import CONTENDERS, pick
from benchmarks._speed_crowd import allow_many_files
from benchmarks._speed_runtimes import make_runtime


def _tell(words: dict[str, object]) -> None:
    print(json.dumps(words), flush=True)


def main(name: str, beat: str | None = None) -> None:
    logging.getLogger().setLevel(logging.CRITICAL)
    allow_many_files()
    (contender,) = pick([name], CONTENDERS)
    try:
        runtime = make_runtime(contender.runtime)
        make: type[House] = getattr(_scale_servers, contender.house)
        house = make(None if beat is None else float(beat), *contender.options)
    except ImportError as error:
        _tell({"missing": str(error)})
        return
    runtime.run(partial(house.run, lambda port: _tell({"port": port})))


if __name__ == "__main__":
    main(*sys.argv[1:])
