"""Loss aggregations, one file each: `aggregate(shard, group)` gives the loss to back-propagate.

`shard` is a `bench.worker.model.ShardLoss`, `group` the sequence-parallel group. With shard
means m_r and token counts n_r, N = sum n_r, the mean over the sequence is sum(n_r m_r) / N.
"""
