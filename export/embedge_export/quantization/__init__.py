"""fp32 graphs to int8 and fp16 graphs. Knows no PyTorch and no model file."""
