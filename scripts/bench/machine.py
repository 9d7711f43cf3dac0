"""The machine of the measurements, and the CPUs that every process is pinned to. Linux only."""

import os
import platform
import time
from pathlib import Path
from typing import Any

# The instructions that determine the speed of int8, named as in /proc/cpuinfo.
_FLAGS = {
    "x86_64": ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8"),
    "aarch64": ("asimd", "asimddp", "i8mm", "sve", "sme"),
}


def describe() -> dict[str, Any]:
    """CPU, memory, system, and how busy the machine was in the second before."""
    info = _cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    known = _FLAGS.get(platform.machine(), ())
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": info.get("model name", platform.machine()).strip(),
        "family_model": f"{info.get('cpu family', '?')}/{info.get('model', '?')}",
        "has": [flag for flag in known if flag in flags],
        "has_not": [flag for flag in known if flag not in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory) / 2**20),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "busy_before_percent": round(busy_percent()),
    }


def busy_percent(seconds: float = 1.0) -> float:
    """Share of all CPUs' time that somebody used, steal included."""

    def read() -> tuple[int, int]:
        fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return sum(fields), fields[3] + fields[4]  # all, idle and waiting

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 100 * (1 - (idle_after - idle) / max(1, total_after - total))


def distinct_cpus(count: int) -> list[int]:
    """CPUs on distinct cores, siblings of one core only where cores run out.

    Raises:
        ValueError: this process may use fewer CPUs.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < count:
        raise ValueError(f"{count} CPUs are needed, this process may use {len(allowed)}")
    first: list[int] = []
    rest: list[int] = []
    seen: set[str] = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = path.read_text() if path.exists() else str(cpu)
        (rest if core in seen else first).append(cpu)
        seen.add(core)
    return (first + rest)[:count]


def _cpuinfo() -> dict[str, str]:
    block = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
