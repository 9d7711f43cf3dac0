"""How many CPUs a process may use: what was asked for, its affinity, its control groups."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder, OptionError
from embedge.ort.threads import _cgroup_cpus, available_cpus, check_threads


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_make_no_sense_are_refused(threads: Any, tiny_file: Path) -> None:
    message = re.escape(
        f"expected threads to be an integer of at least 1, or None; got {threads!r}"
    )
    with pytest.raises(OptionError, match=message):
        Encoder(tiny_file, threads=threads)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has both of these limits")
def test_threads_are_what_was_given_or_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_threads(3) == 3
    monkeypatch.setattr("embedge.ort.threads._cgroup_cpus", lambda cpus: cpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert check_threads(None) == 3
    monkeypatch.setattr("embedge.ort.threads._cgroup_cpus", lambda cpus: 2)
    assert available_cpus() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 16),
        ("0::/\n", {}, 16),
        # A service of systemd: its own limit and that of the slice around it both hold.
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "400000 100000"}, 4),
        (
            "0::/a.slice/b.service\n",
            {"a.slice/b.service/cpu.max": "400000 100000", "a.slice/cpu.max": "300000 100000"},
            3,
        ),
        ("0::/not/mounted/here\n", {"cpu.max": "200000 100000"}, 2),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            16,
        ),
    ],
)
def test_control_groups_limit_the_threads(
    tmp_path: Path, membership: str, files: dict[str, str], cpus: int
) -> None:
    (tmp_path / "self").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _cgroup_cpus(16, tmp_path / "cgroup", tmp_path / "self") == cpus


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert _cgroup_cpus(16, tmp_path, tmp_path / "missing") == 16
