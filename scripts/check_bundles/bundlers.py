"""The bundlers: how each is installed and called, and what is checked of its bundles."""

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import start

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
TIMEOUT_S = 3600

# Names of folders that no bundle may have.
NEVER_RUN = ("embedge_export", "torch", "pyarrow", "sympy")
ONE_VECTOR = ("embed", "--json", "A man is eating food.")
# Modules that numpy and onnxruntime name but nothing here runs; also in docs/desktop.md.
SAFE_EXCLUDES = ("psutil", "yaml", "unittest", "doctest", "pydoc", "xmlrpc", "numpy.testing")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with this checkout's wheel, and the folder for the bundles."""

    work: Path

    def run(self, *command: str | Path) -> str:
        name = Path(command[0])
        program = name if name.is_absolute() else self.work / "venv/bin" / name
        arguments = [str(program), *map(str, command[1:])]
        done = subprocess.run(
            arguments, cwd=self.work, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr}")
        return done.stdout

    def python(self, *arguments: str | Path) -> str:
        return self.run("python", *arguments)

    def install(self, *requirements: str) -> None:
        if requirements:
            self.python("-m", "pip", "install", "--quiet", *requirements)

    def install_checkout(self) -> None:
        if not (self.work / "venv").exists():
            venv.create(self.work / "venv", with_pip=True)
        wheels = self.work / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        pip = ("-m", "pip")
        self.python(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, PROJECT)
        # Torch and the like need not be here: hooks are read for what is installed.
        self.python(*pip, "install", "--quiet", self.wheel)
        self.python(*pip, "install", "--quiet", "--no-deps", "--force-reinstall", self.wheel)

    @property
    def wheel(self) -> str:
        return str(next((self.work / "wheels").glob("embedge-*.whl")))

    def moved(self, built: Path) -> Path:
        """Move a bundle to where it was not built; its new place."""
        place = self.work / "elsewhere" / built.name
        place.parent.mkdir(exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        shutil.move(built, place)
        return place


# A bundle (a file or a folder) and the command that starts it.
Built = tuple[Path, list[str]]


@dataclass(frozen=True)
class Bundler:
    """A way to bundle ``app.py``."""

    name: str
    title: str
    requirement: str
    build: Callable[[Environment], Built]
    further: Callable[[Environment, list[str]], list[str]] = lambda environment, program: []
    variables: dict[str, str] = field(default_factory=dict)
    frozen: bool = True
    licenses: bool = True
    slow: bool = False


def pyinstaller(name: str, *options: str, script: Path = HERE / "app.py") -> Callable[..., Built]:
    def build(environment: Environment) -> Built:
        folders = [f"--{kind}path={environment.work / kind}" for kind in ("dist", "work", "spec")]
        common = ("--noconfirm", "--log-level=ERROR", f"--name={name}", *folders)
        environment.run("pyinstaller", *common, *options, script)
        bundle = environment.moved(environment.work / "dist" / name)
        return bundle, [str(bundle / name if bundle.is_dir() else bundle)]

    return build


def cx_freeze(environment: Environment) -> Built:
    built = environment.work / "cx"
    shutil.rmtree(built, ignore_errors=True)
    environment.run("cxfreeze", "build", f"--script={HERE / 'app.py'}", f"--build-exe={built}")
    bundle = environment.moved(built)
    return bundle, [str(bundle / "app")]


def nuitka(environment: Environment) -> Built:
    options = (
        "--standalone",
        "--include-package-data=embedge",
        f"--nofollow-import-to={','.join((*SAFE_EXCLUDES, 'numpy.f2py'))}",
        "--assume-yes-for-downloads",
        "--output-dir=nuitka",
    )
    environment.python("-m", "nuitka", *options, HERE / "app.py")
    bundle = environment.moved(environment.work / "nuitka/app.dist")
    return bundle, [str(bundle / "app.bin")]


def shiv(environment: Environment) -> Built:
    bundle = environment.work / "embedge.pyz"
    command = ("--console-script", "embedge", "--output-file", bundle)
    environment.run("shiv", *command, environment.wheel)
    return bundle, [sys.executable, str(bundle), *ONE_VECTOR]


def pex(environment: Environment) -> Built:
    bundle = environment.work / "app.pex"
    environment.run("pex", environment.wheel, "--exe", HERE / "app.py", "--output-file", bundle)
    return bundle, [sys.executable, str(bundle)]


def plain_zip(environment: Environment) -> Built:
    """Embedge's own code and model in a zip; numpy and the like, which have libraries, outside."""
    source, bundle = environment.work / "zip", environment.work / "app.pyz"
    shutil.rmtree(source, ignore_errors=True)
    shutil.unpack_archive(environment.wheel, source, "zip")
    shutil.copy(HERE / "app.py", source / "__main__.py")
    environment.python("-m", "zipapp", source, "--output", bundle)
    return bundle, [str(environment.work / "venv/bin/python"), str(bundle)]


def command(environment: Environment) -> Built:
    """The command itself, frozen."""
    code = "import embedge.__main__ as module; print(module.__file__)"
    script = Path(environment.python("-c", code).strip())
    bundle, program = pyinstaller("embedge", script=script)(environment)
    return bundle, [*program, *ONE_VECTOR]


def check_processes(environment: Environment, program: list[str]) -> list[str]:
    """Whether workers of a pool work, and do not multiply."""
    done = start([*program, "pool"], {})
    good = done.status == 0 and json.loads(done.output) == [1, 2, 3]
    return [] if good else [f"a pool of processes: {done.problem or done.error or done.output}"]


def check_command(environment: Environment, program: list[str]) -> list[str]:
    """Whether the frozen command verifies its model, and says what it lacks."""
    problems = []
    for arguments, status, words in (
        (["verify"], 0, ""),
        (["serve", "--stdio"], 0, ""),  # whose standard input is empty
        (["export", "model", "out.onnx"], 2, "embedge[export]"),
        (["compare", "a.onnx", "b.onnx"], 2, "embedge[export]"),
    ):
        done = start([program[0], *arguments], {})
        if done.status != status or words not in done.error:
            problems.append(f"{' '.join(arguments)}: {done.problem or done.error or done.status}")
    return problems


def check_missing_model(environment: Environment, program: list[str]) -> list[str]:
    """Whether a bundle without the model says which option of the bundler was forgotten."""
    bundle = Path(program[0]).parent
    (model,) = bundle.rglob("*.int8.onnx")
    aside = environment.work / model.name
    model.rename(aside)
    done = start(program, {})
    aside.rename(model)
    good = done.status != 0 and "bundle" in done.error
    return [] if good else [f"without its model: {done.problem or done.error or done.status}"]


def check_folder(environment: Environment, program: list[str]) -> list[str]:
    return [*check_processes(environment, program), *check_missing_model(environment, program)]


def check_zip(environment: Environment, program: list[str]) -> list[str]:
    """Whether it was the zip's embedge that ran, and not the installed one."""
    where = json.loads(start(program, {}, frozen=False).output)["embedge"]
    return [] if where.startswith(program[1]) else [f"ran {where}"]


CACHE = str(Path(tempfile.gettempdir()) / "embedge-check-bundles")  # where zipapps unpack
EXCLUDES = [f"--exclude-module={name}" for name in SAFE_EXCLUDES]
BUNDLERS = (
    Bundler("pyinstaller", "PyInstaller", "pyinstaller", pyinstaller("app"), check_folder),
    Bundler(
        "pyinstaller-small",
        "PyInstaller, safe excludes",
        "pyinstaller",
        pyinstaller("small", *EXCLUDES),
        check_processes,
    ),
    Bundler(
        "pyinstaller-onefile",
        "PyInstaller, one file",
        "pyinstaller",
        pyinstaller("onefile", "--onefile"),
        check_processes,
    ),
    Bundler("command", "PyInstaller, the command", "pyinstaller", command, check_command),
    Bundler("cx_Freeze", "cx_Freeze", "cx_Freeze", cx_freeze, check_processes, licenses=False),
    Bundler("nuitka", "Nuitka", "nuitka", nuitka, check_processes, licenses=False, slow=True),
    Bundler("shiv", "shiv", "shiv", shiv, variables={"SHIV_ROOT": CACHE}, frozen=False),
    Bundler("pex", "pex", "pex", pex, variables={"PEX_ROOT": CACHE}, frozen=False),
    Bundler("zip", "zip, libraries outside", "", plain_zip, check_zip, frozen=False),
    Bundler(
        "fastembed",
        "fastembed, without a model",
        "fastembed",
        pyinstaller("fastembed_app", script=HERE / "app_fastembed.py"),
        licenses=False,
    ),
)
