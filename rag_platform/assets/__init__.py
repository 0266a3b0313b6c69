"""What exists: one file an asset, with its checks."""
