"""Differentiable collectives beside the analytic answer: one idea a file.

    variant     the arguments that distinguish cases, and shapes
    uses        what a loss makes of gathered parts
    answers     what each collective must give, value and gradient, in numpy
    data        inputs and upstream gradients, and their memory layouts
    awaiting    the three ways to await a functional collective
    calls       how each function is called
    catalogue   which there are; what a version lacks or adds
    judging     got beside expected
    running     case after case on real process groups
    timing      bandwidth and latency at the sizes of sequence parallelism

For other programs: `running.run_cases(running.partitions_of(world, sp), device, note,
cases=catalogue.cases(("sp",)))` works in any process with an initialised default process group.
"""
