"""A corpus to lines of JSON as it is encoded: nothing is kept, so nothing can be resumed."""

from collections.abc import Callable, Generator
from contextlib import closing

from embedge.corpus.bar import CorpusBar
from embedge.corpus.encoding import advance, encode_rows, read_rows
from embedge.corpus.inputs import Corpus
from embedge.corpus.job import JobOptions, check_dtype
from embedge.corpus.journal import State
from embedge.corpus.output import check_columns, jsonl_lines
from embedge.corpus.rows import BadRow
from embedge.encoder import Encoder
from embedge.errors import CorpusError


def embed_lines(
    encoder: Encoder,
    corpus: Corpus,
    options: JobOptions | None = None,
    *,
    skipped: Callable[[BadRow], None] = lambda row: None,
    progress: bool = False,
) -> Generator[bytes]:
    """Yield the lines of a .jsonl output: id, vector and kept columns of each row.

    Args:
        encoder: makes the vectors.
        corpus: the rows; iterated over once.
        options: how; the defaults of JobOptions.
        skipped: is called with each bad row that ``on_error="skip"`` leaves out.
        progress: as for `embed_corpus`.

    Raises:
        CorpusError: a row is bad and ``on_error`` is "stop"; the lines before it came already.
        OptionError: an argument does not fit.
    """
    options = options or JobOptions()
    check_columns(options.columns(corpus.fields.keep), corpus.fields.keep)
    layout = check_dtype(options.dtype, encoder)
    state = State()
    with (
        closing(read_rows(encoder, corpus, options)) as rows,
        CorpusBar(progress, corpus.fraction, state) as bar,
    ):
        for chunk in encode_rows(encoder, rows, 0, options, bar.encoded):
            columns = [dict(row.columns) for _, row in chunk.good]
            yield from jsonl_lines((chunk.ids, layout.store(chunk.vectors), columns))
            for _, bad in chunk.bad:
                skipped(bad)
            state = advance(state, chunk)
            bar.show(state)
            if chunk.stopped is not None:
                bad = chunk.stopped
                advice = ". Fix the row, or add --on-error skip"
                raise CorpusError(bad.reason + advice, bad.file, bad.line)
