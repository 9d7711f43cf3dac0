"""A folder or hub id to a loaded, described and traced model. The only user of PyTorch."""
