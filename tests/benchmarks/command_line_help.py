"""Wall seconds of `continual --help`: the median of several runs after one that warms the file cache."""

import statistics
import subprocess
import sys
import time

from report import Row, arguments, publish


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    seconds = []
    for _ in range(4 if options.quick else 11):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "flows.commands.command_line", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[1:])
    publish([Row("continual --help", "< 0.5 s", f"{median:.2f} s", median < 0.5)], {"seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
