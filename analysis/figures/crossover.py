"""Ulysses' all-to-alls against ring attention: bytes and time by key/value heads and sp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.splits import COLOURS
from analysis.figures.style import blank, finish, grid, styled
from bench.theory import (
    Cluster,
    ring_bytes_per_layer,
    ring_layer_s,
    ulysses_bytes_per_layer,
    ulysses_layer_s,
)
from bench.trial import DTYPE_BYTES, ModelSpec

MIB = 2**20


def counted_bytes(record: Mapping[str, Any]) -> float | None:
    """Bytes that a rank sent to others in one layer's all-to-alls of a step, as counted.

    Of what a rank hands in, its own share of 1/sp stays. None where none were counted.
    """
    handed_in = [
        count["bytes"]
        for count in record["collectives"]
        if count["rank"] == 0 and count["collective"].startswith("all_to_all")
    ]
    config = record["config"]
    if not handed_in or config["sp"] == 1:
        return None
    sent = sum(handed_in) * (config["sp"] - 1) / config["sp"]
    return sent / config["model"]["layers"]


@styled
def crossover(
    records: Iterable[Mapping[str, Any]], model: ModelSpec, cluster: Cluster, seq_len: int = 131072
) -> Figure:
    """Bytes [MiB] of the recorded layer, and seconds [ms] of `model`'s layer on `cluster`.

    Left: the model that the records hold, theory as lines, what was counted as dots. Right: at
    the cluster's full rates, sp over nodes where it is larger than one.
    """
    found = _recorded(records)
    if not found:
        return blank(
            "Ulysses is not compared with ring attention",
            "No trial with sp > 1 counted its all-to-alls: +experiment=crossover.",
        )
    figure, [counted, timed] = grid(2, [2.8])
    _bytes_panel(counted, found)
    message = _time_panel(timed, model, cluster, seq_len)
    exact = sum(abs(row["counted"] / row["ulysses"] - 1) < 1e-9 for row in found)
    notes = [
        f"Left: {found[0]['name']}, {found[0]['seq_len']:,} tokens, a layer of one step. "
        f"{exact} of {len(found)} counts agree with theory to the byte.",
        f"Right: {model.name} with 1 to {model.heads} kv heads, {seq_len:,} tokens, bfloat16, at "
        f"the full rates of {cluster.name}; predicted, nothing hidden.",
    ]
    spoken = "; ".join(
        f"kv_heads={row['kv_heads']} sp={row['sp']}: Ulysses {row['ulysses'] / MIB:.2f} MiB in "
        f"theory, {row['counted'] / MIB:.2f} counted, ring {row['ring'] / MIB:.2f}"
        for row in found[:16]
    )
    legend = [
        Line2D([], [], color="black", linestyle="-", label="Ulysses"),
        Line2D([], [], color="black", linestyle="--", label="ring"),
        Line2D([], [], color="black", marker="o", linestyle="none", label="counted"),
    ]
    return finish(figure, message, spoken, notes, legend)


def _recorded(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        sent = counted_bytes(record) if record["config"]["scenario"] == "train" else None
        if sent is None:
            continue
        config = record["config"]
        model = ModelSpec(**config["model"])
        shape = (config["sp"], config["micro_batch"], config["seq_len"])
        element = DTYPE_BYTES[config["dtype"]]
        key = (model.name, model.kv_heads, *shape, config["dtype"], config["attention"])
        found[key] = {
            "name": model.name,
            "micro_batch": config["micro_batch"],
            "dtype": config["dtype"],
            "attention": config["attention"],
            "kv_heads": model.kv_heads,
            "sp": config["sp"],
            "seq_len": config["seq_len"],
            "counted": sent,
            "ulysses": ulysses_bytes_per_layer(model, *shape, element).total,
            "ring": ring_bytes_per_layer(model, *shape, element).total,
        }
    if not found:
        return []
    table = pd.DataFrame(found.values())
    for axis in ("name", "seq_len", "micro_batch", "dtype", "attention"):
        table = table[table[axis] == table[axis].value_counts().index[0]]
    rows: list[dict[str, Any]] = table.sort_values(["sp", "kv_heads"]).to_dict("records")
    return rows


def _bytes_panel(axes: Axes, found: list[dict[str, Any]]) -> None:
    sizes = sorted({row["sp"] for row in found})
    for sp, colour in zip(sizes, COLOURS, strict=False):
        rows = [row for row in found if row["sp"] == sp]
        heads = [row["kv_heads"] for row in rows]
        axes.plot(heads, [row["ulysses"] / MIB for row in rows], "-", color=colour)
        axes.plot(heads, [row["ring"] / MIB for row in rows], "--", color=colour)
        axes.plot(heads, [row["counted"] / MIB for row in rows], "o", color=colour, markersize=4)
        axes.annotate(f"sp={sp}", (heads[-1], rows[-1]["ring"] / MIB), color=colour, fontsize=8)
    _heads_axis(axes, [row["kv_heads"] for row in found])
    axes.set_ylabel("sent by a rank [MiB]")


def _time_panel(axes: Axes, model: ModelSpec, cluster: Cluster, seq_len: int) -> str:
    """Draw it; returns what it says."""
    per_node = cluster.gpus_per_node
    sizes = [sp for sp in (2, per_node, 2 * per_node, 4 * per_node) if model.heads % sp == 0]
    heads = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= model.heads and model.heads % n == 0]
    faster = []
    for sp, colour in zip(sizes, COLOURS, strict=False):
        specs = [model.model_copy(update={"kv_heads": kv_heads}) for kv_heads in heads]
        shape = (sp, 1, seq_len, 2)
        ulysses = [ulysses_layer_s(ulysses_bytes_per_layer(m, *shape), sp, cluster) for m in specs]
        ring = [ring_layer_s(ring_bytes_per_layer(m, *shape), sp, cluster) for m in specs]
        axes.plot(heads, [1000 * one for one in ulysses], "-", color=colour)
        axes.plot(heads, [1000 * one for one in ring], "--", color=colour)
        axes.annotate(f"sp={sp}", (heads[-1], 1000 * ring[-1]), color=colour, fontsize=8)
        own = heads.index(model.kv_heads) if model.kv_heads in heads else -1
        faster.append((sp, ring[own] / ulysses[own]))
    _heads_axis(axes, heads)
    axes.set_yscale("log")
    axes.set_ylabel(f"a layer on {cluster.name} [ms]")
    sp, ratio = faster[-1]
    ahead = "Ulysses" if ratio > 1 else "ring attention"
    factor = max(ratio, 1 / ratio)
    return (
        f"{model.name} at sp={sp}: {ahead} would communicate {factor:.1f} times as fast "
        f"on {cluster.name}"
    )


def _heads_axis(axes: Axes, heads: list[int]) -> None:
    ticks = sorted(set(heads))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("key/value heads")
    axes.grid(True, axis="y")
