"""Profiles: from a rank's trace to where its time went. One idea a file.

    recorder.py     named regions and collective calls while a step runs (torch)
    trace.py        Chrome traces: read, put on one clock, merged
    intervals.py    arithmetic of time intervals
    labels.py       what each moment of a rank was spent on
    device.py       what the GPU did, by the labels of what launched it
    breakdown.py    seconds by category, waiting told apart from transfer, what was hidden
    volume.py       calls and bytes beside `bench.theory`
    report.py       all of it, as the record's `details`

All but the recorder are pure arithmetic on nanoseconds, on one clock for all ranks.
"""
