"""Bytes to a checked ModelFile. Knows the ONNX wire format; never imports onnxruntime."""
