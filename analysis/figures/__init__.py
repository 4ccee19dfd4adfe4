"""Figures: each function takes a frame and returns a matplotlib Figure.

One message each, said in the title. A figure for which data is missing says so and is drawn
all the same. `alt_text` gives what a figure shows in words; `show` displays both in a notebook.

from analysis.frame import load
from analysis.figures import throughput
throughput(load("results/quick")).savefig("throughput.svg")
"""

from analysis.figures.capacity import frontier, memory_components
from analysis.figures.cost import cost
from analysis.figures.display import rendered, show, show_table
from analysis.figures.gradient import gradient_audit, gradient_table
from analysis.figures.lines import memory, throughput
from analysis.figures.scaling import scaling
from analysis.figures.steps import phases, step_times
from analysis.figures.style import alt_text

__all__ = [
    "alt_text",
    "cost",
    "frontier",
    "gradient_audit",
    "gradient_table",
    "memory",
    "memory_components",
    "phases",
    "rendered",
    "scaling",
    "show",
    "show_table",
    "step_times",
    "throughput",
]
