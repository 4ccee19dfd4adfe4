"""What an event counts as: by its name, its surroundings, and the operation that it undoes."""

from __future__ import annotations

import pytest

from bench.worker.profiling.labels import Event, Key, label, nested, purpose

NODE = "autograd::engine::evaluate_function: "


def event(name: str, start: int, end: int, sequence: int | None = None) -> Event:
    node = name.startswith(NODE)
    return Event(name, start, end, 1, "cpu_op", sequence, node, forward_thread=1 if node else None)


def labels_of(*events: Event, phases: tuple[str, ...] = ()) -> dict[str, str]:
    """Label by name, of events with distinct names."""
    ordered = nested(events)
    return {e.name: one.label for e, one in zip(ordered, label(ordered, phases), strict=True)}


def test_regions_and_what_is_in_them() -> None:
    found = labels_of(
        event("spbench/step", 0, 100),
        event("spbench/forward", 0, 50),
        event("aten::mm", 1, 5),
        event("aten::add", 6, 7),
        event("spbench/attention", 10, 40),
        event("aten::bmm", 11, 12),
        event("spbench/all_to_all", 20, 30),
        event("aten::clone", 21, 22),
        event("spbench/optimizer", 60, 90),
        event("aten::addmm", 61, 62),
    )
    assert found["aten::mm"] == "matrix"
    assert found["aten::add"] == found["spbench/forward"] == "rest"
    assert found["aten::bmm"] == "attention"  # its own matrix products are attention's
    assert found["aten::clone"] == "all_to_all"
    assert found["aten::addmm"] == "optimizer"


def test_a_backward_node_counts_as_what_made_it() -> None:
    found = labels_of(
        event("spbench/attention", 0, 20),
        event("aten::attend", 1, 10, sequence=7),
        event("aten::linear", 21, 25, sequence=8),
        event(NODE + "LinearBackward0", 30, 40, sequence=8),
        event("aten::mm", 31, 35),
        event(NODE + "AttendBackward0", 40, 50, sequence=7),
        event("aten::bmm", 41, 45),
        event(NODE + "AccumulateGrad", 50, 60),
    )
    assert found["aten::mm"] == "matrix"
    assert found[NODE + "AttendBackward0"] == found["aten::bmm"] == "attention"
    assert found[NODE + "AccumulateGrad"] == "rest"


def test_the_last_operation_of_a_sequence_number_made_the_node() -> None:
    """An operation without a backward has the number of the next one that has one."""
    found = labels_of(
        event("spbench/attention", 0, 10),
        event("aten::empty", 8, 9, sequence=3),
        event("aten::mul", 12, 13, sequence=3),
        event(NODE + "MulBackward0", 20, 30, sequence=3),
    )
    assert found[NODE + "MulBackward0"] == "rest"


def test_a_thread_that_computes_again_has_numbers_of_its_own() -> None:
    """With checkpointing, autograd's thread computes activations again, numbered anew."""
    main, autograd = 1, 2
    forward = [
        event("spbench/attention", 0, 10),
        event("aten::attend", 1, 9, sequence=0),
        event("aten::mul", 11, 12, sequence=1),
    ]
    backward = [
        event("aten::silu", 20, 21, sequence=0)._replace(thread=autograd),
        event(NODE + "MulBackward0", 22, 23, 1)._replace(thread=autograd, forward_thread=main),
        event(NODE + "AttendBackward0", 24, 25, 0)._replace(thread=autograd, forward_thread=main),
        event(NODE + "SiluBackward0", 26, 27, 0)._replace(thread=autograd, forward_thread=autograd),
        event(NODE + "Unknown", 28, 29, 0)._replace(thread=autograd, forward_thread=None),
    ]
    made_by: dict[Key, str] = {}
    label(forward, [], made_by)
    assert [one.label for one in label(backward, [], made_by)] == [
        "rest",
        "rest",
        "attention",
        "rest",
        "rest",
    ]


def test_calls_know_their_number_and_their_backward_node() -> None:
    forward, backward, reduced = label(
        [
            event("spbench/collective/0 all_to_all_single", 0, 5),
            event(NODE + "_SeqAllToAllBackward", 10, 30),
            event("spbench/collective/1 all_reduce", 12, 20),
        ],
        ["forward", "backward"],
    )
    assert (forward.label, forward.call, forward.backward_of) == ("all_to_all", 0, "")
    assert backward.call is None
    assert (reduced.label, reduced.call) == ("gradient_reduction", 1)
    assert reduced.backward_of == "_SeqAllToAllBackward"


def test_a_child_that_seems_to_outlive_its_parent_is_cut() -> None:
    _, child, after = label(
        [event("spbench/attention", 0, 10), event("x", 9, 11), event("y", 10, 12)], []
    )
    assert (child.end, child.label) == (10, "attention")
    assert after.label == "rest"


@pytest.mark.parametrize(
    ("name", "phase", "around", "expected"),
    [
        ("all_reduce", "backward", "rest", "gradient_reduction"),
        ("reduce_scatter_tensor", "backward", "rest", "gradient_reduction"),
        ("all_reduce", "backward", "loss_aggregation", "loss_aggregation"),
        ("all_reduce", "optimizer", "optimizer", "optimizer"),
        ("all_gather_into_tensor", "optimizer", "optimizer", "parameter_gathering"),
        ("all_gather_into_tensor", "forward", "attention", "parameter_gathering"),
        ("all_gather", "aggregate", "loss_aggregation", "loss_aggregation"),
        ("all_to_all_single", "forward", "attention", "all_to_all"),
        ("all_to_all_single", "backward", "loss_aggregation", "loss_aggregation"),
        ("broadcast", "optimizer", "optimizer", "parameter_gathering"),
    ],
)
def test_what_a_collective_serves(name: str, phase: str, around: str, expected: str) -> None:
    assert purpose(name, phase, around) == expected
