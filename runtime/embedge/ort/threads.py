"""How many CPUs this process may use, and starting threads."""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from embedge.errors import ResourceError, check_integer


def available_cpus() -> int:
    """CPUs this process may use: its affinity, and its cgroup's quota rounded up."""
    cpus = _affinity_cpus() or os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_cpus(cpus) if sys.platform == "linux" else cpus))


def _affinity_cpus() -> int | None:
    """CPUs that this process is bound to; None where the system does not say."""
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process, system = ctypes.c_size_t(), ctypes.c_size_t()
        found = kernel.GetProcessAffinityMask(
            ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(process), ctypes.byref(system)
        )
        # 0 in a process of more than one group of 64 CPUs, which may use them all.
        return process.value.bit_count() or None if found else None
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else None


def _cgroup_cpus(
    default: int,
    root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> int:
    """The smallest CPU quota of this process's control groups, in whole CPUs, or ``default``.

    Version 2 has a quota (cpu.max) at every level of the tree, version 1 is read at its root.
    """
    try:
        paths = [line[4:] for line in membership.read_text().splitlines() if line[:4] == "0::/"]
    except OSError:  # not Linux
        return default
    own = root.joinpath(*paths)
    levels = [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    files = [(folder / "cpu.max",) for folder in levels]
    cpus = [default]
    for parts in [*files, (root / "cpu/cpu.cfs_quota_us", root / "cpu/cpu.cfs_period_us")]:
        try:
            quota, period = " ".join(part.read_text() for part in parts).split()[:2]
            if quota not in ("max", "-1"):
                cpus.append(max(1, -(-int(quota) // int(period))))
        except (OSError, ValueError):
            continue
    return min(cpus)


def check_threads(threads: Any) -> int:
    """Resolve the ``threads`` argument of Encoder; raises OptionError where it makes no sense."""
    return available_cpus() if threads is None else check_integer("threads", threads, 1)


def start(threads: Sequence[Thread]) -> list[Thread]:
    """Start threads of which one is enough; returns those that the system gives.

    Raises ResourceError where it gives none.
    """
    started: list[Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        if not started:
            raise ResourceError(
                f"a thread could not be started ({error}); raise this user's or container's limit "
                "of processes (ulimit -u, --pids-limit)"
            ) from error
    return started
