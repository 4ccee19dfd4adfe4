"""What `spbench doctor` says: for people, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.console import Console
from bench.controller import doctor_collectives
from bench.controller.doctor import Audit, losses
from bench.controller.doctor_collectives import Survey
from bench.controller.doctor_heading import conditions, heading, version_fields
from bench.controller.doctor_recipe import REFERENCE_WORDS, Cell, Recipe
from bench.controller.self_test import UNTOUCHED, Mutant
from bench.record import Status


def show(audit: Audit, console: Console) -> None:
    """Versions, the matrix, the recipes and the answer."""
    for line in heading(audit):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if audit.broken is not None:
        console.print(Text(f"\nThis interpreter cannot run any trial: {audit.broken}", "red"))
        return
    _matrix(audit, console)
    for recipe in audit.recipes:
        _recipe(recipe, console)
    for survey in audit.surveys:
        _survey(survey, console)
    console.print(f"\n{answer(audit)}", highlight=False, soft_wrap=True)
    console.print(f"{audit.seconds:.0f} s", style="dim", highlight=False)


def as_json(audit: Audit) -> dict[str, Any]:
    """The same as plain values; keys are documented in docs/doctor.md."""
    q = audit.question
    return {
        "python": str(q.python),
        "versions": version_fields(audit),
        "world": q.world,
        "sp": q.sp,
        "comm": q.comm.name,
        "emulated": q.comm.emulated,
        "mesh_setup": audit.mesh_setup,
        "loss": q.loss,
        "zero": q.zero,
        "reference": q.reference,
        **conditions(q),
        "broken": audit.broken,
        "matrix": [_cell(cell) for cell in audit.cells],
        "recipes": [
            {
                "loss": one.candidate.loss,
                "factor": float(one.candidate.factor),
                "reference": one.reference,
                "zero": one.stages,
                "right_at_zero": one.right_at,
                "source": one.source,
                "proof": [_cell(cell) for cell in one.proof],
            }
            for one in audit.recipes
        ],
        "collectives": [
            {
                "comm": one.comm,
                "cases": len(one.cases),
                "broken": one.broken,
                "missing": one.missing,
            }
            for one in audit.surveys
        ],
        "right": audit.right,
        "answer": answer(audit),
        "seconds": round(audit.seconds, 1),
    }


def answer(audit: Audit) -> str:
    """A few sentences: is it right, and if not, what is."""
    q = audit.question
    if audit.broken is not None:
        return f"This interpreter cannot run any trial: {audit.broken}"
    have = audit.stages_with_recipe
    if q.loss is None:
        return " ".join([*_proven(have), *_without(audit, have)])
    wrong = [c for c in audit.cells if c.loss == q.loss and not c.right]
    if not wrong:
        return f"{q.loss} gives the reference gradient at {_stages(q.stages)}."
    faults = "; ".join(f"ZeRO {cell.zero}: {_fault(cell)}" for cell in wrong)
    remedy = f" The recipe is right at {_stages(have)}." if have else ""
    if not any(cell.verdict for cell in audit.cells):
        return f"{q.loss} could not be judged ({faults})."
    return f"{q.loss} does not give the reference gradient ({faults}).{remedy}"


def _proven(have: Sequence[int]) -> Iterator[str]:
    if have:
        yield f"A proven recipe exists for {_stages(have)}."


def _without(audit: Audit, have: Sequence[int]) -> Iterator[str]:
    """What there is to say of the stages without a recipe: nothing was right, or nothing ran."""
    compared = {cell.zero for cell in audit.cells if cell.verdict}
    lacking = [zero for zero in audit.question.stages if zero not in have]
    if wrong := [zero for zero in lacking if zero in compared]:
        yield f"No aggregation gives the reference gradient at {_stages(wrong)}."
    causes: dict[str, list[int]] = {}
    for zero in lacking:
        if zero not in compared:
            faults = Counter(_fault(cell) for cell in audit.cells if cell.zero == zero)
            causes.setdefault(faults.most_common(1)[0][0].rstrip("."), []).append(zero)
    for cause, zeros in causes.items():
        yield f"No gradient was compared at {_stages(zeros)}: {cause}."


def show_mutants(found: Sequence[Mutant], console: Console) -> None:
    """A line for each mutation, and whether one escaped."""
    table = Table("mutation", "verdict due", "verdict", "", box=None, pad_edge=False)
    for one in found:
        mark = Text("caught", "green") if one.caught else Text("ESCAPED", "bold red")
        if one.name == UNTOUCHED and one.caught:
            mark = Text("right", "green")
        table.add_row(one.name, one.expected or "?", Text(one.found), mark)
    console.print(table)
    console.print(f"\n{mutants_answer(found)}", highlight=False, soft_wrap=True)


def mutants_answer(found: Sequence[Mutant]) -> str:
    """One sentence on all of them."""
    if any(one.name == UNTOUCHED and not one.caught for one in found):
        return (
            "The untouched run is not right by itself, so nothing follows from the others: "
            "choose a pair that is right here with --loss and --zero."
        )
    escaped = [one.name for one in found if not one.caught]
    if escaped:
        return f"{len(escaped)} of {len(found)} escaped: {', '.join(escaped)}."
    return f"All {len(found) - 1} faults were caught, and the untouched run was right."


def _matrix(audit: Audit, console: Console) -> None:
    stages = audit.question.stages
    table = Table(box=None, pad_edge=False)
    table.add_column("loss aggregation", no_wrap=True)
    for zero in stages:
        table.add_column(f"ZeRO {zero}", overflow="fold")
    known = {(cell.loss, cell.zero): cell for cell in audit.cells}
    for loss in losses():
        table.add_row(loss, *(_styled(known[loss, zero]) for zero in stages))
    right = f"right: the gradient of the {REFERENCE_WORDS[audit.question.reference]}"
    console.print(f"\nGradient beside that of one process in float64; {right}", highlight=False)
    console.print(table)
    for line in beside_other(audit.cells):
        console.print(f"  {line}", style="dim", highlight=False, soft_wrap=True, markup=False)
    reasons = {cell.text: cell.reason for cell in audit.cells if cell.reason}
    for reason in dict.fromkeys(reasons.values()):
        console.print(f"  {reason}", style="dim", highlight=False, soft_wrap=True, markup=False)


def beside_other(cells: Sequence[Cell]) -> Iterator[str]:
    """What the gradients are beside the other definition, where that is another gradient."""
    known = [cell.other for cell in cells if cell.other is not None]
    if known:
        apart = f"{100 * max(one.distance for one in known):.2g} %"
        right = sorted(
            {cell.loss for cell in cells if cell.other and cell.other.verdict == "match"}
        )
        who = ", ".join(right) if right else "none of these gradients"
        yield (
            f"the gradient of the {REFERENCE_WORDS[known[0].reference]} is another one, {apart} "
            f"away with the masks used here: {who} {'give' if right else 'is'} "
            f"{'it' if right else 'right by it'}"
        )


def _styled(cell: Cell) -> Text:
    colours = {"match": "green", "scaled": "yellow"}
    return Text(cell.text, colours.get(cell.verdict or "", "red"))


def _recipe(recipe: Recipe, console: Console) -> None:
    failed = [cell for cell in recipe.proof if not cell.right]
    what = f"Recipe for {_stages(recipe.stages)}, {REFERENCE_WORDS[recipe.reference]}"
    masked = any(cell.mask == "empty_shard" for cell in recipe.proof)
    proof = "run as printed: right" + (", a shard without labels included" if masked else "")
    if failed:
        proof = "run as printed: " + "; ".join(
            f"ZeRO {c.zero}, mask={c.mask}: {_fault(c)}" for c in failed
        )
    console.print(f"\n{what} ({proof})\n", style="bold", highlight=False, soft_wrap=True)
    console.out(recipe.source, end="", highlight=False)  # as it is: to be copied


def _survey(survey: Survey, console: Console) -> None:
    head = f"{len(survey.broken)} of {len(survey.cases)} forms of the differentiable collectives"
    console.print(f"\n{head} are broken on the groups of sequence parallelism, {survey.comm}")
    table = Table("collective", "with", "fault", box=None, pad_edge=False, show_header=False)
    for line in doctor_collectives.lines(survey.cases):
        table.add_row(line.collective, "\n".join(line.variants), line.fault)
    if survey.broken:
        console.print(table)
    if survey.missing:
        console.print(f"  not all were tried: {survey.missing}", style="red", highlight=False)


def _fault(cell: Cell) -> str:
    if not cell.finite:
        return "the loss is not finite"
    if cell.error is None and cell.verdict is None and cell.status is Status.OK:
        return cell.reason or "gradient not compared"
    lead = "DeepSpeed's Ulysses does not import: " if cell.in_ulysses else ""
    return f"gradient {cell.text}" if cell.error is None else lead + (cell.reason or cell.error)


def _cell(cell: Cell) -> dict[str, Any]:
    fields = ("loss", "zero", "verdict", "scale", "label", "residual", "error", "reason", "right")
    more = ("mask", "reference", "finite")
    other = None if cell.other is None else cell.other.model_dump(mode="json")
    values = {name: getattr(cell, name) for name in (*fields, *more)}
    return {"status": cell.status.value, **values, "other": other}


def _stages(zeros: Sequence[int]) -> str:
    if len(zeros) < 2:
        return f"ZeRO {zeros[0]}" if zeros else "no ZeRO stage"
    return f"ZeRO {', '.join(map(str, zeros[:-1]))} and {zeros[-1]}"
