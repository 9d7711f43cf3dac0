"""The only importer of onnxruntime: providers, threads, session options.

Telemetry is off before onnxruntime initializes: since 1.29 its wheels would start a thread and
write a device id under the user's cache folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from embedge.errors import ModelError, OptionError, ProviderError
from embedge.modelfile import INPUTS, OUTPUT, ModelFile

ort.disable_telemetry_events()  # for a process that had imported onnxruntime before us

# Short name: onnxruntime's name.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}

# onnxruntime prints from this level up: 4 is fatal. What goes wrong reaches the caller anyway.
_LOG_SEVERITY = 4


class Session:
    """A model file loaded into onnxruntime; `run` may be called from several threads at once."""

    def __init__(self, file: ModelFile, providers: str | Sequence[str] = "auto") -> None:
        """Load ``file``.

        Raises:
            ProviderError: a provider is unknown, not available, or did not take the model.
            ModelError: onnxruntime cannot load the graph.
        """
        wanted = resolve_providers(providers)
        self._dim = file.settings.dim
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_SEVERITY
        # Workers call `run` in parallel, one thread each: that doubles throughput on two cores
        # where two intra-op threads give 1.1 to 1.5 times. Nothing spins while idle.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A memory plan is kept for every input shape; there are as many as token counts.
        options.enable_mem_pattern = False
        # Else bytes that look like onnxruntime's own format would be read as that, unchecked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = ort.InferenceSession(file.data, options, providers=wanted)
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise ModelError(f"{file.path}: onnxruntime cannot load it: {error}") from error
        self.providers: list[str] = self._session.get_providers()
        missing = [name for name in wanted if name not in self.providers]
        if missing:
            raise ProviderError(
                f"{', '.join(missing)} could not be started here; working: "
                f"{', '.join(self.providers)}. Use providers='cpu', or mend its installation"
            )

    def run(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of sequences of equal length: int64 (batch, sequence) to float32 (batch, dim).

        Raises:
            ModelError: the graph fails on these ids.
        """
        mask = np.ones_like(input_ids)
        try:
            (vectors,) = self._session.run(
                [OUTPUT], dict(zip(INPUTS, (input_ids, mask), strict=True))
            )
        except Exception as error:
            raise ModelError(f"onnxruntime failed on this model and text: {error}") from error
        if vectors.shape != (len(input_ids), self._dim):
            raise ModelError(
                f"the graph gave vectors of shape {vectors.shape} for {len(input_ids)} texts, but "
                f"says that they have {self._dim} components each; export the model again"
            )
        return vectors  # type: ignore[no-any-return]


def resolve_providers(providers: str | Sequence[str]) -> list[str]:
    """onnxruntime's names of the providers asked for; "auto" means the CPU.

    Raises:
        ProviderError: a name is unknown or its provider is not available in this onnxruntime.
    """
    names = [providers] if isinstance(providers, str) else list(providers)
    available = ort.get_available_providers()
    resolved = []
    for name in names:
        full = PROVIDERS["cpu"] if name == "auto" else PROVIDERS.get(name, name)
        if full not in available:
            raise ProviderError(
                f"the provider {name!r} is not available here; available: "
                f"{', '.join(available)}; short names: auto, {', '.join(PROVIDERS)}"
            )
        resolved.append(full)
    if not resolved:
        raise ProviderError("no provider was given; use providers='auto' or 'cpu'")
    return resolved


def available_cpus() -> int:
    """CPUs this process may really use: its affinity, and its cgroup's quota rounded up."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_cpus(cpus)))


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
    if threads is None:
        return available_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise OptionError(f"threads should be a positive integer or None, but is {threads!r}")
    return threads
