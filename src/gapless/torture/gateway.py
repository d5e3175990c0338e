"""The gateway under torture: `gapless serve`, with a clock that can be set from outside.

    python -m gapless.torture.gateway serve …

`time.time` answers the system's time plus the offset that the file named by `GAPLESS_TORTURE_CLOCK` holds
(eight bytes, a double, in seconds). It is replaced before anything of the gateway is imported. With
`GAPLESS_TORTURE_PLANT` a defect is planted, for the tests of the checker; see `plants`.

The variables are read here only: `gapless serve` knows neither.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

CLOCK = "GAPLESS_TORTURE_CLOCK"
PLANT = "GAPLESS_TORTURE_PLANT"


def set_clock(path: str, offset: float) -> None:
    """Let the gateway's clock be ahead of the system's by so many seconds; negative: behind."""
    with open(path, "r+b" if os.path.exists(path) else "w+b") as file:
        file.write(struct.pack("d", offset))


def _shift_clock(path: str) -> None:
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time

    def shifted() -> float:
        (offset,) = struct.unpack("d", shared[:8])
        return real() + float(offset)

    time.time = shifted


def main() -> None:
    """Run the command line with what the environment asks for."""
    clock = os.environ.pop(CLOCK, None)
    plant = os.environ.pop(PLANT, None)
    if clock is not None:
        _shift_clock(clock)
    if plant is not None:
        from gapless.torture.plants import plant_defect

        plant_defect(plant)
    from gapless.cli import main as run

    run()


if __name__ == "__main__":
    main()
