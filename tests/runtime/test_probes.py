import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge import Encoder, ModelError
from embedge.modelfile.file import read
from embedge.modelfile.probe import Probe
from embedge.ort.probes import ProbeResult, SelfTestResult, verify

from . import tiny


def result_of(folder: Path, *probes: Probe) -> SelfTestResult:
    path = tiny.write(folder / "x.onnx", tiny.model(probes=probes))
    return verify(read(path), Encoder(path))


def vector(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_a_file_that_gives_its_own_vectors_holds(tmp_path: Path) -> None:
    """By hand: (0.6, 0.8) with itself is 1; with the source's (0.8, 0.6) it is 0.96."""
    result = result_of(tmp_path, tiny.probe("a b", vector(0.8, 0.6), tiny.A_B))
    assert result.holds
    (probe,) = result.probes
    assert probe.text == "a b"
    assert probe.output == pytest.approx(1, abs=1e-6)
    assert probe.reference == pytest.approx(0.96, abs=1e-6)
    assert json.loads(json.dumps(result.describe()))["holds"] is True


@pytest.mark.parametrize(
    "output", [vector(0.8, 0.6), vector(-0.6, -0.8), vector(0, 0), vector(np.nan, 1)]
)
def test_one_wrong_vector_is_enough(tmp_path: Path, output: NDArray[np.float32]) -> None:
    right = tiny.probe("a", vector(1, 0), vector(1, 0))
    result = result_of(tmp_path, right, tiny.probe("a b", tiny.A_B, output))
    assert not result.holds
    assert result.probes[0].output == pytest.approx(1)


def test_lengths_do_not_matter_to_a_cosine(tmp_path: Path) -> None:
    assert result_of(tmp_path, tiny.probe("a b", tiny.A_B, tiny.A_B * 1000)).holds


def test_a_cosine_of_the_bound_itself_holds() -> None:
    def holds(cosine: float) -> bool:
        return ProbeResult("a", None, same_ids=True, output=cosine, reference=1).holds

    assert [holds(cosine) for cosine in (0.999, 0.99899, 1)] == [True, False, True]


def test_other_token_ids_are_said_before_other_vectors(tmp_path: Path) -> None:
    """What another version of tokenizers could do: the vector may be right or wrong."""
    other = replace(tiny.probe("a b"), ids=(tiny.CLS, tiny.A, tiny.SEP))
    result = result_of(tmp_path, tiny.probe("a", vector(0, 1), vector(0, 1)), other)
    assert not result.holds
    assert [probe.same_ids for probe in result.probes] == [True, False]
    assert result.difference() == "wrong token ids for 1 of 2 probes (the first: 'a b')"
    vectors = result_of(tmp_path, tiny.probe("a", vector(0, 1), vector(0, 1)))
    assert vectors.difference() == (
        "wrong vectors for 1 of 1 probes: cosine to the file's own 0.000000 ('a'), "
        "but at least 0.999 is needed"
    )


def test_a_probe_is_encoded_with_its_prompt(tmp_path: Path) -> None:
    """Prompt "b ": "b b" sums to (1, 8), of length 65 ** 0.5."""
    expected = vector(1 / 65**0.5, 8 / 65**0.5)
    (probe,) = result_of(tmp_path, tiny.probe("b", output=expected, prompt="passage")).probes
    assert probe.same_ids
    assert probe.output == pytest.approx(1, abs=1e-6)


def test_a_truncated_probe_is_compared_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Of eight tokens six are the text's: (1, 0) + 6 (2, 0) has the direction (1, 0)."""
    ids = (tiny.CLS, *[tiny.A] * 6, tiny.SEP)
    long = replace(tiny.probe("a " * 9, output=vector(1, 0)), ids=ids)
    result = result_of(tmp_path, long)
    assert result.holds
    assert not recwarn.list


def test_a_file_without_probes_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the file has no probes to verify; export it again"):
        result_of(tmp_path)


def test_probes_are_encoded_as_texts_are_with_the_default_prompt(tmp_path: Path) -> None:
    """The default prompt is "b ": "b a b" sums to (3, 8), and (0.6, 0.8) @ (3, 8) is 8.2."""
    settings = replace(tiny.SETTINGS, default_prompt="passage")
    probe = tiny.probe("a b", prompt="passage")
    data = tiny.model(settings=settings, probes=[replace(probe, prompt=None)])
    path = tiny.write(tmp_path / "x.onnx", data)
    (found,) = verify(read(path), Encoder(path)).probes
    assert found.same_ids
    assert found.output == pytest.approx(8.2 / 73**0.5, abs=1e-6)


def test_the_default_model_holds_on_this_machine(default: Encoder) -> None:
    result = verify(read(default.info["path"]), default)
    assert result.holds
    assert len(result.probes) >= 9
    limit, texts = default.max_tokens, [probe.text for probe in result.probes]
    assert max(default.count_tokens(texts)) > limit
    assert any("ΟΔΥΣΣΕΥΣ" in text for text in texts)  # with a final sigma
    assert any("\U00020bb7" in text for text in texts)  # beyond the BMP
    assert np.mean([probe.reference for probe in result.probes]) > 0.99
