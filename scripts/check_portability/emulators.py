"""Other CPUs under QEMU user emulation, set up in a folder without root and without touching the
package state of this machine.

The packages come from the sources that this Debian machine is configured with, through a private
apt state; the aarch64 wheels from the index that pip is configured with, in the versions that are
installed here.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_WORKER = Path(__file__).with_name("worker.py")
_QEMU = {"aarch64": "qemu-aarch64-static", "x86_64": "qemu-x86_64-static"}
DEPENDENCIES = ("numpy", "onnxruntime", "tokenizers")
# Newest first, as pip wants them.
_WHEEL_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")

# Everything that apt writes stays in {folder}; an empty status makes it fetch every dependency.
_APT_CONF = """\
#clear APT::Update;
#clear DPkg;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "{host}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
"""

# onnxruntime crashes on an aarch64 whose /proc/cpuinfo is an x86 one; the emulator's root wins.
_CPUINFO = """\
processor\t: {index}
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 1

"""


@dataclass(frozen=True)
class Cpu:
    """A CPU that QEMU emulates: its architecture, QEMU's name for it, an Arm's part number."""

    architecture: str
    model: str
    part: str
    note: str


CPUS = {
    "haswell": Cpu("x86_64", "Haswell", "", "x86-64: AVX2, no VNNI"),
    "cortex-a72": Cpu("aarch64", "cortex-a72", "0xd08", "Raspberry Pi 4: no dot product"),
    "cortex-a76": Cpu("aarch64", "cortex-a76", "0xd0b", "Raspberry Pi 5: dot product"),
    "neoverse-n1": Cpu("aarch64", "neoverse-n1", "0xd0c", "servers: dot product"),
    # "max" has no part number of its own; this is a Neoverse-V2.
    "i8mm": Cpu("aarch64", "max,pauth-impdef=on,sve=off,sme=off", "0xd4f", "i8mm, no SVE"),
    "sve": Cpu("aarch64", "max,pauth-impdef=on,sme=off", "0xd4f", "i8mm and SVE"),
    "sme": Cpu("aarch64", "max,pauth-impdef=on", "0xd4f", "i8mm, SVE and SME"),
}


class Emulators:
    """Runs the worker on this CPU and on others.

    Attributes:
        qemu_version: the version of the emulator.
    """

    def __init__(self, cache: Path) -> None:
        """Download what is missing in ``cache``; raises CalledProcessError where that fails."""
        if platform.machine() != "x86_64" or not shutil.which("apt-get"):
            raise SystemExit("check_portability needs an x86-64 machine with Debian's apt-get")
        cache = cache.resolve()
        cache.mkdir(parents=True, exist_ok=True)
        self._root = _once(cache / "arm64", _unpack_python)
        self._qemu = _find_qemu(cache)
        self._wheels = _once(cache / f"wheels {' '.join(_requirements())}", _install_wheels)
        said = _output([self._qemu["aarch64"], "--version"])
        self.qemu_version = said.splitlines()[0].removeprefix("qemu-aarch64 version ")

    def run(self, cpu: Cpu | None, model: Path, out: Path) -> None:
        """Run the worker on a CPU at the lowest priority; None is this machine, the reference.

        Raises:
            subprocess.CalledProcessError: it failed; what it said is in ``stderr``.
        """
        command: list[str | Path] = [sys.executable, _WORKER, model, out]
        path = [PROJECT / "runtime"]
        if cpu is None:
            command.append("reference")
        elif cpu.architecture == "x86_64":
            command = [self._qemu["x86_64"], "-cpu", cpu.model, *command]
        else:
            processors = range(os.cpu_count() or 1)
            cpuinfo = "".join(_CPUINFO.format(index=i, part=cpu.part) for i in processors)
            (self._root / "proc" / "cpuinfo").write_text(cpuinfo)
            command[0] = self._root / "usr/bin/python3"
            command = [self._qemu["aarch64"], "-L", self._root, "-cpu", cpu.model, *command]
            path.append(self._wheels)
        _output(["nice", "-n", "19", *command], PYTHONPATH=os.pathsep.join(map(str, path)))


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder unless it is there; one that was not finished does not count."""
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(folder)
    return folder


def _unpack_python(folder: Path) -> None:
    """An arm64 root with Debian's Python and the libraries that it and the wheels need."""
    _unpack(folder, "python3", "libstdc++6")
    (folder / "proc").mkdir(exist_ok=True)


def _find_qemu(cache: Path) -> dict[str, Path]:
    """The emulators by architecture: Debian's in the cache, or those on PATH without it."""
    try:
        folder = _once(cache / "qemu", _unpack_qemu)
    except subprocess.CalledProcessError:
        found = {name: shutil.which(program) for name, program in _QEMU.items()}
        if None in found.values():
            raise
        return {name: Path(program) for name, program in found.items() if program}
    return {name: folder / program for name, program in _QEMU.items()}


def _unpack_qemu(folder: Path) -> None:
    _unpack(folder, f"qemu-user-static:{_host_architecture()}")
    for program in _QEMU.values():
        (folder / "usr/bin" / program).rename(folder / program)
    shutil.rmtree(folder / "usr")  # the emulators of forty other architectures


def _unpack(folder: Path, *packages: str) -> None:
    """Unpack packages and all that they depend on."""
    with tempfile.TemporaryDirectory() as name:
        apt = Path(name)
        for part in ("lists/partial", "archives/partial"):
            (apt / part).mkdir(parents=True)
        (apt / "status").touch()
        configuration = apt / "apt.conf"
        configuration.write_text(_APT_CONF.format(folder=apt, host=_host_architecture()))
        apt_get: list[str | Path] = ["apt-get", "-c", configuration, "--quiet=2"]
        _output([*apt_get, "update"])
        _output([*apt_get, "install", "--yes", "--download-only", *packages])
        for package in (apt / "archives").glob("*.deb"):
            _output(["dpkg", "-x", package, folder])


def _install_wheels(folder: Path) -> None:
    """The aarch64 wheels for the root's Python."""
    (python,) = (folder.parent / "arm64/usr/bin").glob("python3.*[0-9]")
    platforms = [f"--platform={tag}" for tag in _WHEEL_PLATFORMS]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", f"--python-version={python.name.removeprefix('python')}"]
    _output([*command, *platforms, f"--target={folder}", *_requirements()])


def _requirements() -> list[str]:
    return [f"{name}=={version(name)}" for name in DEPENDENCIES]


def _host_architecture() -> str:
    return _output(["dpkg", "--print-architecture"]).strip()


def _output(command: Sequence[str | Path], **environment: str) -> str:
    run = subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return run.stdout
