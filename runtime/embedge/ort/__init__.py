"""Token ids to vectors. All that touches onnxruntime; nothing of files of texts."""
