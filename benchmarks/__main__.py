"""``python -m benchmarks run`` measures, ``python -m benchmarks table`` writes the tables."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .contenders import PEERS
from .measure import Settings
from .results import RESULTS, read, run_suites
from .suites import SUITES
from .table import write_tables

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write a JSON file")
    run.add_argument(
        "--suite",
        nargs="+",
        choices=SUITES,
        default=[],
        metavar="SUITE",
        help=f"of {', '.join(SUITES)}; all by default",
    )
    run.add_argument(
        "--peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}; all by default, none if nothing follows"
    )
    run.add_argument("--json", type=Path, metavar="OUT", help="the file; other suites that it holds stay in it")
    run.add_argument("--seconds", type=float, default=6.0, help="measured time per contender and case (default 6)")
    run.add_argument("--rounds", type=int, default=7, help="slices that it is cut into (default 7)")
    run.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where gpuseq makes its batches (default cpu)"
    )
    run.add_argument(
        "--budget", type=float, metavar="SECONDS", help="begin nothing after that; what is done is kept (default: none)"
    )
    run.add_argument("--resume", action="store_true", help="leave out the suites that OUT has")
    run.add_argument("--smoke", action="store_true", help="tiny sizes, to try it out; the figures mean nothing")
    table = commands.add_parser("table", help="write tables and plots from JSON files into the documentation")
    table.add_argument("results", nargs="*", type=Path, help=f"JSON files; all of {RESULTS.name}/ by default")
    table.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something would change")
    options = parser.parse_args(arguments)
    if options.command == "run":
        if options.seconds <= 0 or options.rounds < 1:
            parser.error("--seconds and --rounds must be positive")
        unknown = set(options.peers or ()) - set(PEERS)
        if unknown:
            parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
        chosen = None if options.peers is None else tuple(options.peers)
        deadline = None if options.budget is None else time.monotonic() + options.budget
        settings = Settings(options.seconds, options.rounds, options.device, chosen, options.smoke, deadline)
        run_suites(tuple(options.suite), settings, options.json, resume=options.resume)
        return 0
    files = options.results or sorted(RESULTS.glob("*.json"))
    if not files:
        parser.error(f"no result files: run `python -m benchmarks run --json {RESULTS}/cpu.json` first")
    changed = write_tables([read(file) for file in files], check=options.check)
    for path in changed:
        print(f"{'would change' if options.check else 'wrote'} {path}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
