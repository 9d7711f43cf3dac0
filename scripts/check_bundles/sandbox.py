"""Run a bundle with nothing of this machine: no network, no HOME, no rights, and in bounds.

A frozen program that starts itself as its own worker multiplies for ever. So each one runs in a
process namespace of its own, all of which ends with it, and may start few processes.
"""

import os
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 120
PROCESSES = 100  # threads count as well
NOBODY = "65534"


@dataclass(frozen=True)
class Run:
    """What a program did; ``problem`` says what kept it from ending."""

    status: int
    output: str
    error: str
    seconds: float
    problem: str = ""


def start(program: list[str], variables: dict[str, str], *, frozen: bool = True) -> Run:
    """Run a program from / and wait for its end.

    A ``frozen`` one has all it needs, so anyone may run it; others need this user's interpreter.
    """
    root = os.geteuid() == 0  # whom no limit of processes binds
    namespaces = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    namespaces += [] if root else ["--map-current-user"]
    user = (
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if root and frozen
        else []
    )
    # The namespace ends with its first process. That is a shell, for a program that changes its
    # user is no longer killed with its parent.
    first = ["sh", "-c", '"$@"; exit $?', "sh"]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [*namespaces, *first, *user, "prlimit", f"--nproc={PROCESSES}", *program],
            cwd="/",
            env=variables | {"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            preexec_fn=no_core,
        )
    except subprocess.TimeoutExpired:
        return Run(-1, "", "", TIMEOUT_S, f"still running after {TIMEOUT_S} s")
    seconds = time.perf_counter() - begin
    return Run(done.returncode, done.stdout, done.stderr.strip(), seconds)


def no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def size_mb(path: Path) -> float:
    """Bytes of a file, or of a folder's files, in MB of 10^6."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir()) / 1e6
