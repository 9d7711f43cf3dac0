"""Providers: names, plugins, what auto takes, and that none hands out a wrong vector."""

import json
import re
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from embedge import Encoder, ModelError, ProviderError
from embedge.cli.main import main
from embedge.cli.survey import survey
from embedge.modelfile.file import read
from embedge.ort import providers
from embedge.ort.providers import PROVIDERS, Choice, available, configure, resolve, wheel_conflict
from embedge.ort.session import Session

from . import tiny

FP16 = replace(tiny.SETTINGS, quantization="fp16")
INT8 = replace(tiny.SETTINGS, quantization="int8")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """CUDA as far as can be seen from outside: the CPU runs it, and says that it was CUDA.

    Its vectors are changed by "run"; what it was given is under "given".
    """
    stand_in: dict[str, Any] = {"run": lambda vectors: vectors, "given": [], "rows": []}
    real = ort.InferenceSession
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    class StandIn:
        def __init__(self, data: bytes, options: Any, providers: Any, **others: Any) -> None:
            stand_in["given"].append(providers)
            self._session = real(data, options, providers=["CPUExecutionProvider"])
            self._names = [name for name, _ in providers]

        def get_providers(self) -> list[str]:
            return list(dict.fromkeys([*self._names, both[1]]))

        def disable_fallback(self) -> None:
            stand_in["no fallback"] = True

        def run(self, outputs: Any, feeds: Any) -> list[NDArray[np.float32]]:
            (vectors,) = self._session.run(outputs, feeds)
            if self._names[0] == both[1]:
                return [vectors]
            stand_in["rows"].append(len(vectors))
            return [stand_in["run"](vectors)]

    monkeypatch.setattr(ort, "InferenceSession", StandIn)
    monkeypatch.setattr(ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("no such library"), raising=False)
    return stand_in


def file_of(folder: Path, settings: Any = FP16, **options: Any) -> Path:
    return tiny.write(folder / "x.onnx", tiny.model(settings=settings, **options))


def names(choices: list[Choice]) -> list[str]:
    return [choice.name for choice in choices]


def test_auto_is_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "_devices", lambda provider: iter(()))
    for quantization in ("int8", "fp16", "fp32"):
        assert names(resolve("auto", quantization)) == ["CPUExecutionProvider"]
    for name in ("cpu", ["cpu"], "CPUExecutionProvider", [("cpu", {})]):
        assert names(resolve(name, "fp16")) == ["CPUExecutionProvider"]


def test_auto_takes_a_gpu_for_files_that_suit_it_only(cuda: Any, tmp_path: Path) -> None:
    assert names(resolve("auto", "fp16")) == ["CUDAExecutionProvider"]
    assert names(resolve("auto", "fp32")) == ["CUDAExecutionProvider"]
    assert names(resolve("auto", "w8a8")) == ["CPUExecutionProvider"]
    assert Encoder(file_of(tmp_path)).info["providers"][0] == "CUDAExecutionProvider"
    assert Encoder(file_of(tmp_path, INT8)).info["providers"][0] == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["coreml", "tensorrt", "openvino"])
def test_auto_never_takes_these(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [PROVIDERS[name].name, "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(providers, "_devices", lambda provider: iter(()))
    assert names(resolve("auto", "fp16")) == ["CPUExecutionProvider"]
    assert names(resolve(name, "fp16")) == [PROVIDERS[name].name]


def test_options_reach_onnxruntime(cuda: Any, tmp_path: Path) -> None:
    Encoder(file_of(tmp_path), providers=[("cuda", {"device_id": 1}), "cpu"])
    expected = [("CUDAExecutionProvider", {"device_id": "1"}), ("CPUExecutionProvider", {})]
    assert cuda["given"] == [expected]
    assert cuda["no fallback"]


@pytest.mark.parametrize(("name", "concurrent"), [("cuda", True), ("coreml", False)])
def test_providers_that_need_it_run_one_call_at_a_time(
    name: str, concurrent: bool, cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: [PROVIDERS[name].name, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(providers, "_devices", lambda provider: iter(()))
    session = Session(read(file_of(tmp_path)), name)
    meeting = threading.Barrier(2)
    met = []

    def wait_for_the_other(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            met.append(meeting.wait(timeout=60 if concurrent else 0.5) >= 0)
        except threading.BrokenBarrierError:
            met.append(False)
        return vectors

    cuda["run"] = wait_for_the_other
    ids = np.array([[tiny.CLS, tiny.A, tiny.SEP]])
    calls = [threading.Thread(target=session.run, args=(ids,)) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert met == [concurrent] * 2


def test_coreml_is_given_its_better_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CoreMLExecutionProvider"])
    (choice,) = resolve([("coreml", {"MLComputeUnits": "CPUAndGPU"})], "fp16")
    assert choice.options == {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"}


@pytest.mark.parametrize("item", [1, None, ("cuda",), ("cuda", "x"), {"cuda": {}}])
def test_what_is_no_provider_is_refused(item: Any, tiny_file: Path) -> None:
    message = re.escape(
        f"expected a provider's name, or in a list (name, options), got {item!r}; for"
    )
    with pytest.raises(ProviderError, match=message):
        Encoder(tiny_file, providers=[item])


@pytest.mark.parametrize("providers", [None, 1, b"cpu", {"cpu": {"device_id": 1}}])
def test_what_is_neither_a_name_nor_a_list_is_refused(providers: Any, tiny_file: Path) -> None:
    message = re.escape(f"expected providers to be a name or a list, got {providers!r}; for")
    with pytest.raises(ProviderError, match=message):
        Encoder(tiny_file, providers=providers)


def test_no_provider_at_all_is_refused(tiny_file: Path) -> None:
    with pytest.raises(
        ProviderError, match=r"expected a provider, got an empty list; use providers='auto'"
    ):
        Encoder(tiny_file, providers=[])


@pytest.mark.parametrize("name", ["tpu", "CUDA", ""])
def test_an_unknown_provider_is_refused(name: str, tiny_file: Path) -> None:
    message = f"there is no provider {name!r} here; available: cpu.*; short names: auto, cpu, cuda"
    with pytest.raises(ProviderError, match=message):
        Encoder(tiny_file, providers=name)


def test_an_array_of_names_is_a_list_of_names(tiny_file: Path) -> None:
    with pytest.raises(ProviderError, match="'nothing'"):
        Encoder(tiny_file, providers=np.array(["nothing", "cpu"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "cpu"])
def test_a_provider_that_is_not_here_is_refused_with_its_install_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tiny_file: Path
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "_devices", lambda provider: iter(()))
    monkeypatch.setattr(providers, "_registered", set())
    install = PROVIDERS[name].install
    message = re.escape(f"{name!r} is not available here; available: cpu; to have it: {install}")
    with pytest.raises(ProviderError, match=message):
        Encoder(tiny_file, providers=[name])


def test_the_web_service_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["AzureExecutionProvider", "NewExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: found)
    monkeypatch.setattr(providers, "_devices", lambda provider: iter(()))
    assert available() == ["cpu", "NewExecutionProvider"]


def test_a_provider_that_does_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime continues on the CPU where CUDA's libraries are missing; we do not."""
    real = ort.InferenceSession
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda data, options, providers, enable_fallback: real(data, providers=both[1:]),
    )
    message = "CUDAExecutionProvider could not be started here; working: CPUExecutionProvider. Use"
    file = providers_file()
    with pytest.raises(ProviderError, match=re.escape(message)):
        Session(file, "cuda")


def providers_file() -> Any:
    from embedge.modelfile.file import parse

    return parse(tiny.model(), Path("memory"))


def test_what_a_provider_does_not_take_is_its_error_not_the_files(
    cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no MultiHeadAttention")

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(ProviderError, match=r"cuda rejected it: no Multi.*--format fp16"):
        Encoder(file_of(tmp_path, INT8), providers="cuda")
    with pytest.raises(ProviderError, match=r"no MultiHeadAttention; use .*'cpu', other options"):
        Encoder(file_of(tmp_path), providers="cuda")
    with pytest.raises(ModelError, match="onnxruntime cannot load it: no Multi"):
        Encoder(file_of(tmp_path), providers="cpu")


# The self-test.


def test_a_provider_that_gives_the_files_vectors_is_taken(
    cuda: Any, tmp_path: Path, capsys: Any
) -> None:
    encoder = Encoder(file_of(tmp_path), providers="cuda")
    assert encoder.info["self_test"] == pytest.approx(1)
    np.testing.assert_allclose(encoder.encode("a b"), tiny.A_B, atol=1e-6)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "no such library\n"


def test_the_cpu_is_not_tested(tiny_file: Path) -> None:
    assert Encoder(tiny_file).info["self_test"] is None


def swapped(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(0.6, 0.8) becomes (0.8, 0.6): cosine 0.96."""
    return vectors[:, ::-1]


def only_alone(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Right for one text, and the second of a batch comes out as another: cosine 0.96."""
    return np.concatenate([vectors[:1], swapped(vectors[1:])])


@pytest.mark.parametrize(
    ("run", "figure"),
    [
        (swapped, "0.960000"),
        (only_alone, "0.960000"),
        (lambda vectors: -vectors, "-1.000000"),
        (lambda vectors: vectors * 0, "0.000000"),
        (lambda vectors: vectors * np.nan, "nan"),
    ],
    ids=["swapped", "wrong in a batch only", "negated", "zeros", "not numbers"],
)
def test_a_provider_that_gives_wrong_vectors_is_refused(
    run: Any, figure: str, cuda: Any, tmp_path: Path
) -> None:
    cuda["run"] = run
    message = (
        f"cuda gives wrong vectors for 1 of 1 probes: cosine to the file's own {figure} ('a b'), "
        "but at least 0.999 is needed; use providers='cpu'"
    )
    with pytest.raises(ProviderError, match=re.escape(message)):
        Encoder(file_of(tmp_path), providers="cuda")


def fails(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """As WebGPU does on a device without float16, which it finds out when it first runs."""
    raise RuntimeError("Gather requires f16\nbut the device does not support it.")


def test_a_provider_that_cannot_run_the_graph_is_refused(cuda: Any, tmp_path: Path) -> None:
    cuda["run"] = fails
    message = "cuda cannot run it: .* requires f16 but the device .*; use providers='cpu', other"
    with pytest.raises(ProviderError, match=message):
        Encoder(file_of(tmp_path), providers="cuda")


@pytest.mark.parametrize(
    ("run", "why"), [(swapped, "gives wrong vectors"), (fails, "cannot run it: .* f16 but")]
)
def test_auto_falls_back_to_the_cpu_and_says_why(
    run: Any, why: str, cuda: Any, tmp_path: Path
) -> None:
    cuda["run"] = run
    message = f"providers='auto' falls back to the CPU: .* cuda {why}"
    with pytest.warns(RuntimeWarning, match=message) as told:
        encoder = Encoder(file_of(tmp_path))
    assert told[0].filename == __file__
    assert encoder.info["providers"] == ["CPUExecutionProvider"]
    np.testing.assert_allclose(encoder.encode("a b"), tiny.A_B, atol=1e-6)


def test_a_file_without_probes_has_no_self_test(cuda: Any, tmp_path: Path) -> None:
    message = (
        "the file has no probes, so the vectors of cuda cannot be verified; export the file again"
    )
    with pytest.raises(ProviderError, match=message):
        Encoder(file_of(tmp_path, probes=()), providers="cuda")


def test_the_self_test_uses_the_default_prompt_and_cuts_like_encode(
    cuda: Any, tmp_path: Path
) -> None:
    """ "b a b" is (1, 0) + (0, 4) + (2, 0) + (0, 4): its direction is (3, 8) / sqrt(73)."""
    expected = np.array([3, 8], np.float32) / np.float32(73**0.5)
    cut = np.array([1, 24], np.float32)  # [CLS], b six times
    ids = (tiny.CLS, *[tiny.B] * 6, tiny.SEP)
    settings = replace(FP16, default_prompt="passage")
    probes = (
        replace(tiny.probe("a b", expected, expected, prompt="passage"), prompt=None),
        replace(tiny.probe("b " * 50, cut, cut), ids=ids),
    )
    path = file_of(tmp_path, settings, probes=probes)
    encoder = Encoder(path, providers="cuda", dim=1)
    assert encoder.info["self_test"] > 0.999
    assert encoder.truncated == 0


# Plugins.


def device(name: str, kind: str, **more: str) -> Any:
    hardware = SimpleNamespace(type=SimpleNamespace(name=kind), vendor="Maker")
    return SimpleNamespace(ep_name=name, device=hardware, ep_metadata={"version": "1", **more})


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The OpenVINO plugin, installed: "devices" is what its library will offer."""
    state: dict[str, Any] = {"devices": [], "registered": []}
    module = SimpleNamespace(
        get_ep_names=lambda: ["OpenVINOExecutionProvider"], get_library_path=lambda: "/x/ov.so"
    )
    cpu = device("CPUExecutionProvider", "CPU")

    def register(name: str, path: str) -> None:
        if state.get("broken"):
            raise RuntimeError("libtbb is missing")
        state["registered"].append((name, path))

    def devices() -> list[Any]:
        return [cpu, *(state["devices"] if state["registered"] else [])]

    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", module)  # type: ignore[arg-type]
    real = find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: (
            "here"
            if name == "onnxruntime_ep_openvino"
            else None
            if name.startswith("onnxruntime_ep")
            else real(name)
        ),
    )
    monkeypatch.setattr(ort, "register_execution_provider_library", register, raising=False)
    monkeypatch.setattr(ort, "get_ep_devices", devices, raising=False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "_registered", set())
    return state


OPENVINO = "OpenVINOExecutionProvider"


def test_a_plugin_is_registered_when_asked_for_and_once(plugin: Any) -> None:
    resolve("cpu", "fp16")
    resolve("auto", "int8")
    assert plugin["registered"] == []
    plugin["devices"] = [device(OPENVINO, "CPU", library_path="x")]
    for name in ("openvino", OPENVINO):
        (choice,) = resolve(name, "fp16")
        assert choice.device is plugin["devices"][0]
    assert plugin["registered"] == [("embedge.onnxruntime_ep_openvino", "/x/ov.so")]
    assert available() == ["cpu", "openvino"]


def test_a_device_of_a_plugin_can_be_asked_for(plugin: Any) -> None:
    kinds = ("NPU", "CPU", "GPU")
    plugin["devices"] = [device(OPENVINO, kind, library_path="x") for kind in kinds]
    (choice,) = resolve("openvino", "fp16")
    assert choice.device.device.type.name == "GPU"
    (choice,) = resolve([("openvino", {"device_type": "cpu", "num_of_threads": 2})], "fp16")
    assert choice.device.device.type.name == "CPU"
    assert choice.options == {"num_of_threads": "2"}
    plugin["devices"] = plugin["devices"][1:2]
    with pytest.raises(ProviderError, match="no device of type 'GPU' here; it has: CPU"):
        resolve([("openvino", {"device_type": "gpu"})], "fp16")


def test_a_plugin_without_a_device_here_is_refused(plugin: Any) -> None:
    message = r"onnxruntime_ep_openvino is installed, but has no device .* \(Maker CPU\); available"
    with pytest.raises(ProviderError, match=message):
        resolve("openvino", "fp16")


def test_a_plugin_that_does_not_load_is_refused(plugin: Any) -> None:
    plugin["broken"] = True
    message = "the plugin onnxruntime_ep_openvino cannot be loaded: libtbb is missing"
    with pytest.raises(ProviderError, match=message):
        resolve("openvino", "fp16")
    assert available() == ["cpu"]


def test_an_onnxruntime_without_plugins_says_so(
    plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ort, "get_ep_devices")
    with pytest.raises(ProviderError, match=r"is a plugin, which onnxruntime .* --upgrade"):
        resolve("openvino", "fp16")
    assert names(resolve("auto", "fp16")) == ["CPUExecutionProvider"]


def test_a_plugins_device_is_put_into_the_session_options() -> None:
    given: list[Any] = []
    options = SimpleNamespace(
        add_provider_for_devices=lambda devices, options: given.append((devices, options)),
        add_provider=lambda name, options: given.append((name, options)),
    )
    plugin = Choice(OPENVINO, {"a": "b"}, device="device")
    others = [Choice("CUDAExecutionProvider", {}), Choice("CPUExecutionProvider", {})]
    assert configure(options, [plugin, *others]) is None
    assert given == [(["device"], {"a": "b"}), ("CUDAExecutionProvider", {})]


@pytest.mark.skipif(
    find_spec("onnxruntime_ep_openvino") is None,
    reason="needs the plugin: python -m pip install '.[openvino]'",
)
def test_openvino_for_real(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    if "openvino" not in available():
        with pytest.raises(ProviderError, match="is installed, but has no device"):
            Encoder(path, providers="openvino")
        return
    encoder = Encoder(path, providers="openvino")
    assert encoder.info["providers"][0] == OPENVINO
    assert encoder.info["self_test"] >= 0.999
    np.testing.assert_allclose(encoder.encode(["a b"] * 3), [tiny.A_B] * 3, atol=0.01)


# Two wheels of onnxruntime, and the survey.


def test_two_wheels_are_said(monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    assert wheel_conflict() == ""
    installed = {"onnxruntime", "onnxruntime-gpu"}
    monkeypatch.setattr(providers, "_is_installed", lambda name: name in installed)
    expected = "uninstall -y onnxruntime onnxruntime-gpu && python -m pip install onnxruntime-gpu"
    assert wheel_conflict().endswith(expected)
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        with pytest.raises(ProviderError, match="And onnxruntime and onnxruntime-gpu are inst"):
            Encoder(tiny_file, providers="cuda")


def test_a_survey_has_a_row_for_every_provider(cuda: Any, tmp_path: Path) -> None:
    right = survey(read(file_of(tmp_path)), ["cpu", "cuda"], threads=1)
    assert [trial.provider for trial in right] == ["cpu", "cuda"]
    for trial in right:
        assert trial.cosine == pytest.approx(1)
        assert trial.texts_per_s
        assert trial.load_s
        assert trial.problem == ""
    cuda["run"] = swapped
    (wrong,) = survey(read(file_of(tmp_path)), ["cuda"])
    assert (wrong.cosine, wrong.texts_per_s) == (None, None)
    assert "cuda gives wrong vectors" in wrong.problem
    with pytest.raises(ModelError, match="no probes to verify"):
        survey(read(file_of(tmp_path, probes=())))


def test_verify_all_prints_the_survey(
    cuda: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_devices", lambda provider: iter(()))
    path = str(file_of(tmp_path))
    assert main(["verify", path, "--providers", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["provider", "cosine", "load", "s", "texts/s"]
    assert [line.split()[:2] for line in lines[1:]] == [["cpu", "1.000000"], ["cuda", "1.000000"]]
    cuda["run"] = swapped
    assert main(["verify", path, "--providers", "all", "--json"]) == 1
    cpu, refused = json.loads(capsys.readouterr().out)
    assert cpu["problem"] == ""
    assert "cuda gives wrong vectors" in refused["problem"]
