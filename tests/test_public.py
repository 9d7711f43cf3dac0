"""The public face: what is promised to be importable, and nothing more."""

import embedge
import embedge_export


def test_embedge_exports_exactly_this() -> None:
    assert set(embedge.__all__) == {
        "ClosedError",
        "CorpusError",
        "EmbedgeError",
        "Encoder",
        "ExportError",
        "InstallationError",
        "ModelError",
        "OptionError",
        "ProviderError",
        "ResourceError",
        "TextError",
        "TextTooLongError",
        "TruncationWarning",
        "__version__",
    }
    for name in embedge.__all__:
        assert hasattr(embedge, name)


def test_every_error_is_an_embedge_error() -> None:
    errors = [getattr(embedge, name) for name in embedge.__all__ if name.endswith("Error")]
    assert all(issubclass(error, embedge.EmbedgeError) for error in errors)


def test_embedge_export_exports_exactly_this() -> None:
    assert set(embedge_export.__all__) == {"Recipe", "export", "export_all"}
    assert callable(embedge_export.export)


def test_public_methods_of_encoder() -> None:
    assert {name for name in dir(embedge.Encoder) if not name.startswith("_")} == {
        "close",
        "count_tokens",
        "dim",
        "encode",
        "encode_document",
        "encode_iter",
        "encode_passages",
        "encode_query",
        "explain",
        "fingerprint",
        "info",
        "max_tokens",
        "passages",
        "similarity",
        "truncated",
    }
