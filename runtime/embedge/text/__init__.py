"""Strings to token ids. Knows tokenizers and limits; nothing of the graph or onnxruntime."""
