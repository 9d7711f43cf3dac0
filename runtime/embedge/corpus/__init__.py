"""Whole corpora to vectors; search and duplicates over stored vectors.

Nothing here is imported by `embedge` itself. Text, JSON lines, CSV and .npy need nothing but the
runtime's dependencies; Parquet, Arrow and zstd need the extra `embedge[corpus]`. What is named here
is public; the modules are not.
"""

from embedge.corpus.documents import DocumentMatch, search_documents
from embedge.corpus.encoding import RowOptions
from embedge.corpus.inputs import Corpus, Source, find_sources, stream_source, text_source
from embedge.corpus.job import JobOptions, Summary, embed_corpus
from embedge.corpus.lines import embed_lines
from embedge.corpus.metadata import Metadata
from embedge.corpus.passages import PassageOptions
from embedge.corpus.rows import BadRow, Place, Row
from embedge.corpus.saved import open_vectors, read_metadata, verify_vectors
from embedge.corpus.search import Match, duplicates, search
from embedge.corpus.vectors import StoredVectors, embed_now

__all__ = [
    "BadRow",
    "Corpus",
    "DocumentMatch",
    "JobOptions",
    "Match",
    "Metadata",
    "PassageOptions",
    "Place",
    "Row",
    "RowOptions",
    "Source",
    "StoredVectors",
    "Summary",
    "duplicates",
    "embed_corpus",
    "embed_lines",
    "embed_now",
    "find_sources",
    "open_vectors",
    "read_metadata",
    "search",
    "search_documents",
    "stream_source",
    "text_source",
    "verify_vectors",
]
