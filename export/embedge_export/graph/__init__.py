"""ONNX graphs: how they are read, changed and written. Knows no PyTorch."""
