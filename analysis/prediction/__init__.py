"""Predictions: cluster files, efficiencies fitted to recorded trials, the splits of a cluster."""
