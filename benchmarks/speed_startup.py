"""CPU seconds of `import seedbed` and `seedbed --help`, a bare interpreter's included. Ratio: the goal of 0.3 s over what --help takes."""

from __future__ import annotations

import statistics

from common import child, interval, quick, report

HELP_S, IMPORT_S = 0.3, 0.15


def main() -> None:
    rounds = 5 if quick() else 15
    sides = {"python": ("-c", "pass"), "import": ("-c", "import seedbed"), "help": ("-m", "seedbed.cli", "--help")}
    seconds = {name: [child(*args)["cpu_seconds"] for _ in range(rounds)] for name, args in sides.items()}
    medians = {f"{name}_seconds": statistics.median(values) for name, values in seconds.items()}
    assert medians["import_seconds"] < IMPORT_S, medians
    ratio, low, high = interval([HELP_S / s for s in seconds["help"]])
    report("startup", ratio, 1, rounds, low, high, **medians)


if __name__ == "__main__":
    main()
