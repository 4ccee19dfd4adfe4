"""Loss aggregations to paste: plain torch, one file each, named like those in `bench.worker.loss`.

`aggregate(loss, tokens, group)` takes this rank's mean loss over its valid labels, their number as
a float tensor, and the sequence-parallel group; it returns the loss to back-propagate. A rank
without a valid label may hand in the NaN that `torch.nn.functional.cross_entropy` gives: it counts
0. `token_mean` is the mean over all ranks' tokens, the others are over the group's. `spbench
doctor` prints the text of these files and runs it as printed.
"""
