"""How long `eyechart --help` and `import eyechart` take, beside the interpreter alone: the floor nobody can beat.

Run: python bench/help_time.py [ROUNDS]. The contenders take turns; minimum, median and maximum in seconds.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "import eyechart": ["-c", "import eyechart"],
    "eyechart --help": ["-m", "eyechart", "--help"],
    "eyechart exam --help": ["-m", "eyechart", "exam", "--help"],
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of every command, one each in every round."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    for name, seconds in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10).items():
        print(f"{name:<22}{min(seconds):7.3f}{statistics.median(seconds):7.3f}{max(seconds):7.3f}")
