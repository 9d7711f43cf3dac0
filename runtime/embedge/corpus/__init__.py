"""Whole corpora to vectors, and what vectors are for: search and duplicates.

Nothing here is imported by `embedge` itself. Text, JSON lines, CSV and .npy need nothing but the
runtime's dependencies; Parquet, Arrow and zstd need the extra `embedge[corpus]`.
"""
