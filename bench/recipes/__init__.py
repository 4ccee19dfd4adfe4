"""Loss aggregations to paste: plain torch, one file each, named like those in `bench.worker.loss`.

`aggregate(loss, tokens, group)` takes this rank's mean loss over its valid labels (0 where it
has none), their number as a float tensor, and the sequence-parallel group; it returns the loss
to back-propagate. `spbench doctor` prints the text of these files and runs it as printed.
"""
