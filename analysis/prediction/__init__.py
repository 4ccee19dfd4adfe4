"""Predictions: cluster files, efficiencies fitted to recorded trials, the splits of a cluster."""

from analysis.prediction.files import ClusterSpec, cluster_named, model_named
from analysis.prediction.fit import Fit, Point, fit, points_of
from analysis.prediction.splits import NothingFits, Split, predict_splits, recommend

__all__ = [
    "ClusterSpec",
    "Fit",
    "NothingFits",
    "Point",
    "Split",
    "cluster_named",
    "fit",
    "model_named",
    "points_of",
    "predict_splits",
    "recommend",
]
