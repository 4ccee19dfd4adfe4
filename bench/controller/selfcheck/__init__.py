"""`spbench selfcheck`: does spbench itself measure rightly with this interpreter on this machine?

    stand.py      what rows are run on: launches trials, and knows what the machine has
    row.py        a row: what is expected, what was seen, and whether that passes
    rows.py       all rows, the most telling first, and how they are run
    gradients.py  right gradients, and every way of comparing them
    failures.py   forking, running out of memory, drills, and what they leave behind
    timing.py     clocks, first steps, the cost of measuring, profiles, rates

The doctor asks whether *your* training is right (`spbench doctor`); its `--self-test`, whether the
judge of gradients detects every injected fault, is one row here.
"""
