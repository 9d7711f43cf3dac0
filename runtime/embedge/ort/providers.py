"""onnxruntime's execution providers: a table, and names resolved to what a session takes.

A provider is either built into the installed onnxruntime, or a plugin: a package of its own, whose
library is registered here when its provider is asked for, never before.

The only module that imports onnxruntime: telemetry has to be off before the import. Wheels since
1.29 would start a thread and write a device id under the user's cache folder.
"""

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from embedge.errors import InstallationError, ProviderError, is_native
from embedge.ort.installation import import_problem

try:
    import onnxruntime
except ImportError as error:
    cause = error.__cause__
    if cause and not (is_native(cause) or isinstance(cause, OSError)):
        raise cause from None  # Ctrl-C, for one, while its library was initialized
    raise InstallationError(import_problem(error)) from error

ort = onnxruntime  # session.py takes it from here

if not hasattr(ort, "InferenceSession"):  # an empty folder, left behind by another wheel
    raise InstallationError(import_problem(None))
ort.disable_telemetry_events()  # for a process that had imported onnxruntime before us

# A name, onnxruntime's or ours, or one with the provider's own options; or several, best first.
Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]

CPU = "CPUExecutionProvider"
_PIP = "python -m pip install"
_REPLACE = "python -m pip uninstall -y onnxruntime && " + _PIP


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        name: onnxruntime's name of it.
        install: how to get it, a command where there is one.
        plugin: the module of the package that brings it, if it is a plugin.
        options: options that it is given unless the caller says otherwise.
        auto: "auto" takes it for files of floating point numbers.
        parallel: several threads may run one session at the same time.
    """

    name: str
    install: str
    plugin: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    auto: bool = False
    parallel: bool = False


# "auto" tries those marked so in this order. CoreML is not: it has been seen to be many times
# slower than the CPU, and to give wrong vectors. TensorRT is not: it builds for minutes.
PROVIDERS = {
    "cpu": Provider(CPU, f"{_PIP} --force-reinstall onnxruntime", parallel=True),
    "cuda": Provider(
        "CUDAExecutionProvider",
        f"{_REPLACE} 'onnxruntime-gpu[cuda,cudnn]'",
        auto=True,
        parallel=True,
    ),
    "directml": Provider(
        "DmlExecutionProvider", f"{_REPLACE} onnxruntime-directml (Windows)", auto=True
    ),
    "webgpu": Provider(
        "WebGpuExecutionProvider",
        f"{_PIP} onnxruntime-ep-webgpu",
        plugin="onnxruntime_ep_webgpu",
        auto=True,
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        f'{_PIP} "embedge[openvino]"',
        plugin="onnxruntime_ep_openvino",
        options={"num_of_threads": "1"},  # of each call; calls run concurrently
        parallel=True,
    ),
    "coreml": Provider(
        "CoreMLExecutionProvider",
        f"{_PIP} onnxruntime (macOS)",
        # The newer of its formats: it takes fp16 and far more operators. No folder for a cache is
        # named, so nothing stays on disk.
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
    ),
    "tensorrt": Provider("TensorrtExecutionProvider", f"{_REPLACE} onnxruntime-gpu, and TensorRT"),
    "tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        f"{_PIP} onnxruntime-ep-nv-tensorrt-rtx",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}
_SHORT = {provider.name: short for short, provider in PROVIDERS.items()}

# Files of floating point numbers, as `ModelSettings.quantization` names them: int8 runs on the CPU.
_FLOATING = ("fp16", "fp32")
# Distributions that bring the same package, onnxruntime, and overwrite each other's files.
_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_REMOTE = {"AzureExecutionProvider"}  # in every wheel; calls a web service
# A plugin may offer several devices: the first of these kinds that it has, unless asked.
_KINDS = ("GPU", "CPU", "NPU")

_EXAMPLE = "providers=[('cuda', {'device_id': 1}), 'cpu']"

_lock = threading.Lock()


@dataclass(frozen=True)
class Choice:
    """A provider as passed to a session: its options, and a plugin's device."""

    name: str
    options: Mapping[str, str]
    device: Any = None
    parallel: bool = False


def resolve(providers: Providers, quantization: str) -> list[Choice]:
    """Resolve ``providers`` to what a session takes.

    "auto" is the CPU, or for a file of floating point numbers (``quantization`` "fp16" or "fp32")
    the first provider installed that the table marks so.

    Raises:
        ProviderError: a name is unknown, its provider is not available, or an item is not a name.
    """
    if isinstance(providers, (Mapping, bytes)) or not isinstance(providers, Iterable):
        raise ProviderError(
            f"expected providers to be a name or a list, got {providers!r}; for example {_EXAMPLE}"
        )
    items = [providers] if isinstance(providers, str) else list(providers)
    if not items:
        raise ProviderError("expected a provider, got an empty list; use providers='auto' or 'cpu'")
    return [_choose(*_named(item), quantization) for item in items]


def short_name(name: str) -> str:
    """Our name of a provider where we have one, else onnxruntime's."""
    return _SHORT.get(name, name)


def available() -> list[str]:
    """Names of the providers that can be asked for here; plugins are registered to find out."""
    found = [short for short, provider in PROVIDERS.items() if _is_available(provider)]
    others = set(ort.get_available_providers()) - set(_SHORT) - _REMOTE
    # A plugin of several devices adds names such as OpenVINOExecutionProvider.AUTO.
    return found + sorted(name for name in others if name.partition(".")[0] not in _SHORT)


def wheel_conflict() -> str:
    """What is wrong if several wheels of onnxruntime are installed, or the empty string."""
    found = [name for name in _WHEELS if _is_installed(name)]
    if len(found) < 2:
        return ""
    return (
        f"{' and '.join(found)} are installed together, but overwrite each other's files; "
        f"uninstall all and install one: python -m pip uninstall -y {' '.join(found)} && "
        f"{_PIP} {found[-1]}"
    )


def configure(options: Any, choices: Sequence[Choice]) -> list[tuple[str, Any]] | None:
    """Put plugins into ``options``; returns what InferenceSession takes as ``providers``.

    That is None where there is a plugin: onnxruntime takes its providers from one place only.
    """
    if all(choice.device is None for choice in choices):
        return [(choice.name, dict(choice.options)) for choice in choices]
    for choice in choices:
        if choice.device is not None:
            options.add_provider_for_devices([choice.device], dict(choice.options))
        elif choice.name != CPU:  # which comes last, unasked
            options.add_provider(choice.name, dict(choice.options))
    return None


def _named(item: Any) -> tuple[str, Mapping[str, Any]]:
    match item:
        case str():
            return item, {}
        case (str() as name, Mapping() as options):
            return name, options
    raise ProviderError(
        f"expected a provider's name, or in a list (name, options), got {item!r}; "
        f"for example {_EXAMPLE}"
    )


def _choose(name: str, options: Mapping[str, Any], quantization: str) -> Choice:
    if name == "auto":
        name = _automatic(quantization)
    name = _SHORT.get(name, name)
    provider = PROVIDERS.get(name, Provider(name, ""))
    given = {**provider.options, **{key: str(value) for key, value in options.items()}}
    devices = list(_devices(provider))
    if not devices and provider.name in ort.get_available_providers():
        if name == "cuda" and hasattr(ort, "preload_dlls"):
            with redirect_stdout(sys.stderr):  # where it says what it did not find
                ort.preload_dlls()
        return Choice(provider.name, given, parallel=provider.parallel)
    if not devices:
        raise ProviderError(_not_available(name, provider))
    kind = given.pop("device_type", "").upper()
    fitting = [device for device in devices if kind in ("", _kind(device))]
    if not fitting:
        kinds = ", ".join(map(_kind, devices))
        raise ProviderError(f"{name} has no device of type {kind!r} here; it has: {kinds}")
    return Choice(provider.name, given, fitting[0], provider.parallel)


def _automatic(quantization: str) -> str:
    if quantization in _FLOATING:
        for short, provider in PROVIDERS.items():
            if provider.auto and _is_available(provider):
                return short
    return "cpu"


def _is_available(provider: Provider) -> bool:
    try:
        return provider.name in ort.get_available_providers() or any(_devices(provider))
    except ProviderError:
        return False


def _devices(provider: Provider) -> Iterator[Any]:
    """The devices that a plugin offers, after registering it, in the order of _KINDS."""
    if not hasattr(ort, "get_ep_devices"):
        if provider.plugin and importlib.util.find_spec(provider.plugin):
            raise ProviderError(
                f"{provider.plugin} is a plugin, which onnxruntime {ort.__version__} does not "
                f"take: {_PIP} --upgrade onnxruntime"
            )
        return
    with _lock:
        _register(provider.plugin)
        found = [
            device
            for device in ort.get_ep_devices()
            if device.ep_name == provider.name and "library_path" in device.ep_metadata
        ]  # built-in providers have devices as well, but no library of their own
    yield from sorted(found, key=lambda device: (*_KINDS, _kind(device)).index(_kind(device)))


_registered: set[str] = set()


def _register(plugin: str) -> None:
    if not plugin or plugin in _registered or importlib.util.find_spec(plugin) is None:
        return
    try:
        module = importlib.import_module(plugin)
        names = module.get_ep_names()
        if not any(device.ep_name in names for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(f"embedge.{plugin}", module.get_library_path())
    except Exception as error:  # whatever the plugin or its library raises
        raise ProviderError(f"the plugin {plugin} cannot be loaded: {error}") from error
    _registered.add(plugin)


def _kind(device: Any) -> str:
    return str(device.device.type.name)


def _not_available(name: str, provider: Provider) -> str:
    here = f"available: {', '.join(available())}"
    if not provider.install:
        return f"there is no provider {name!r} here; {here}; short names: auto, " + ", ".join(
            PROVIDERS
        )
    if provider.plugin in _registered:
        machine = {f"{device.device.vendor} {_kind(device)}" for device in ort.get_ep_devices()}
        return (
            f"{provider.plugin} is installed, but has no device for {name!r} on this machine "
            f"({', '.join(sorted(machine))}); {here}"
        )
    text = f"the provider {name!r} is not available here; {here}; to have it: {provider.install}"
    conflict = wheel_conflict()
    return f"{text}. And {conflict}" if conflict else text


def _is_installed(distribution: str) -> bool:
    from importlib import metadata  # slow to import, seldom asked

    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
