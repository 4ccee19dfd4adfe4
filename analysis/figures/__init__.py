"""Figures: each function takes a frame and returns a matplotlib Figure.

One message each, said in the title. A figure for which data is missing says so and is drawn
all the same. `alt_text` gives what a figure shows in words; `show` displays both in a notebook.

from analysis.frame import load
from analysis.figures import throughput
throughput(load("results/quick")).savefig("throughput.svg")
"""

from analysis.figures.audit import gradient_matrix
from analysis.figures.breakdown import breakdown, overlap_table, volume_table
from analysis.figures.capacity import frontier, memory_components
from analysis.figures.collectives import bandwidth, collectives
from analysis.figures.compat import compat, compat_table
from analysis.figures.cost import cost
from analysis.figures.crossover import crossover
from analysis.figures.display import rendered, show, show_table
from analysis.figures.gradient import gradient_audit, gradient_table
from analysis.figures.lines import memory, throughput
from analysis.figures.prediction import fitted, held_out, predicted_splits
from analysis.figures.scaling import scaling
from analysis.figures.splits import splits
from analysis.figures.steps import phases, step_times
from analysis.figures.style import alt_text

__all__ = [
    "alt_text",
    "bandwidth",
    "breakdown",
    "collectives",
    "compat",
    "compat_table",
    "cost",
    "crossover",
    "fitted",
    "frontier",
    "gradient_audit",
    "gradient_matrix",
    "gradient_table",
    "held_out",
    "memory",
    "memory_components",
    "overlap_table",
    "phases",
    "predicted_splits",
    "rendered",
    "scaling",
    "show",
    "show_table",
    "splits",
    "step_times",
    "throughput",
    "volume_table",
]
