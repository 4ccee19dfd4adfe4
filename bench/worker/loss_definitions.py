"""The two losses of a whole batch, as weights of its data-parallel replicas.

With S_r the sum of the cross-entropies of replica r over its N_r valid labels, and R replicas:

    replica_mean = (1 / R) sum_r S_r / N_r        what data parallelism averages
    token_mean   = sum_r S_r / sum_r N_r          one cross-entropy over all labels

A replica's gradient enters both, each with its own weight, so one pass gives both gradients.
"""

from __future__ import annotations

from typing import Dict, List, Sequence

from bench.specs import ReferenceName
from bench.worker.batch import IGNORED, Batch

OTHER: Dict[ReferenceName, ReferenceName] = {
    "replica_mean": "token_mean",
    "token_mean": "replica_mean",
}


def valid_labels(batch: Batch) -> List[int]:
    """Valid labels of each replica of a whole batch."""
    return [int((labels != IGNORED).sum()) for labels in batch.labels]


def weights(definition: ReferenceName, labels: Sequence[int]) -> List[float]:
    """What a replica's sum of cross-entropies counts in the loss, given all valid `labels`."""
    if definition == "token_mean":
        return [1.0 / max(1, sum(labels))] * len(labels)
    return [1.0 / (len(labels) * max(1, count)) for count in labels]


def ratios(definition: ReferenceName, labels: Sequence[int]) -> List[float]:
    """A replica's weight by the other definition, as a multiple of its weight by this one."""
    own, other = weights(definition, labels), weights(OTHER[definition], labels)
    return [there / here for here, there in zip(own, other)]
