"""Attention methods, one file each: `build(mesh, spec)` gives a `CoreAttention`."""
