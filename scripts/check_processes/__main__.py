#!/usr/bin/env python3
"""Use an Encoder as servers, notebooks and worker processes do, and print what that leaves behind.

    python scripts/check_processes                  all checks, some minutes; prints a table
    python scripts/check_processes --only threads   one of them; may be repeated
    python scripts/check_processes --quick          a second each
    python scripts/check_processes --only idle --idle 1000

Exit status 1 if a check fails.
"""

import argparse
import sys
import warnings
from pathlib import Path

from common import Check, Options
from resources import affinity, closed, idle, left
from sharing import fork, query, spawn, threads
from stopping import cancel, command, exception, interrupt, quit

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        *(threads, fork, spawn, interrupt, exception, left, affinity, idle),
        *(quit, command, cancel, closed, query),
    )
}


def main() -> int:
    description, _, rest = (__doc__ or "").partition("\n\n")
    form = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    form.add_argument("--model", type=Path, help="model file (default: the one shipped)")
    form.add_argument("--only", choices=CHECKS, action="append", help="may be repeated")
    form.add_argument("--quick", action="store_true")
    form.add_argument("--idle", type=float, default=30, metavar="SECONDS")
    options = form.parse_args(namespace=Options())
    warnings.simplefilter("ignore", UserWarning)
    failed = 0
    print("| check | found | |\n|---|---|---|")
    for name in options.only or CHECKS:
        good, figure = CHECKS[name](options)
        failed += not good
        what = (CHECKS[name].__doc__ or name).strip()
        print(f"| {what} | {figure} | {'holds' if good else 'DOES NOT HOLD'} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
