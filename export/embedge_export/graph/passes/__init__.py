"""One pass a module, ModelProto to ModelProto; each keeps the function that a graph computes."""
