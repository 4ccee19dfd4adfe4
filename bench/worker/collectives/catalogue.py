"""Which collectives there are: those known here, those that this version lacks, and those it adds.

The known ones are named below with the operation that they are (`answers.OPERATIONS`), the way
they are called, and the variants to try. Modules are looked through for public functions beside
them, so that what a later version adds appears as a row that says so, and not at all as nothing.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple

from bench.worker.collectives import calls
from bench.worker.collectives.awaiting import AWAITED
from bench.worker.collectives.calls import Call
from bench.worker.collectives.data import LAYOUTS
from bench.worker.collectives.uses import USES
from bench.worker.collectives.variant import Variant

MODULES = {
    "nn": "torch.distributed.nn.functional",
    "fc": "torch.distributed._functional_collectives",
    "ds": "deepspeed.sequence.layer",
}
"""The short names of modules in the names of collectives."""

_PLAIN = (Variant(),)
_GATHERED = (Variant(), *(Variant(use=use) for use in USES))
_ROOTED = tuple(
    Variant(root=root, root_by=by) for by in ("world", "group") for root in ("first", "last")
)
_REDUCED = tuple(Variant(reduction=name) for name in ("sum", "avg", "max", "min", "product"))
_REDUCED_TO_ROOT = (
    *_ROOTED,
    *(Variant(reduction=name, root="last") for name in ("avg", "max", "min", "product")),
)
_FUNCTIONAL = tuple(Variant(reduction=name) for name in ("sum", "avg", "max"))
_DIMS = (Variant(), Variant(dim=1))
_SCATTERED = (*_DIMS, Variant(reduction="avg"))
_SPLITS = (Variant(), Variant(split="uneven"))
_PAIR = (Variant(tensors=2),)
_SEQUENCE = tuple(
    Variant(scatter=scatter, split=split, batch_dim=batch_dim, batch=batch)
    for split in ("even", "uneven")
    for scatter in ("heads", "sequence")
    for batch_dim in (0, 1)
    for batch in (1, 2)
)


@dataclass(frozen=True)
class Known:
    """A collective that we can call and know the answer of."""

    operation: str
    call: Call
    variants: Tuple[Variant, ...] = _PLAIN


KNOWN: Dict[str, Known] = {
    "nn.all_gather": Known("all_gather", calls.nn_all_gather, _GATHERED),
    "nn._all_gather_base": Known("all_gather_single", calls.nn_all_gather_base),
    "nn.all_reduce": Known("all_reduce", calls.nn_all_reduce, _REDUCED),
    "nn.broadcast": Known("broadcast", calls.nn_broadcast, _ROOTED),
    "nn.gather": Known("gather", calls.nn_gather, _ROOTED),
    "nn.scatter": Known("scatter", calls.nn_scatter, _ROOTED),
    "nn.reduce": Known("reduce", calls.nn_reduce, _REDUCED_TO_ROOT),
    "nn.reduce_scatter": Known("reduce_scatter", calls.nn_reduce_scatter, _REDUCED),
    "nn.all_to_all": Known("all_to_all", calls.nn_all_to_all),
    "nn.all_to_all_single": Known("all_to_all_single", calls.nn_all_to_all_single, _SPLITS),
    "fc.all_reduce": Known("all_reduce", calls.fc_all_reduce, _FUNCTIONAL),
    "fc.broadcast": Known("broadcast", calls.fc_broadcast, _ROOTED),
    "fc.all_gather_single": Known("all_gather_single", calls.fc_all_gather, _DIMS),
    "fc.all_gather_single_autograd": Known("all_gather_single", calls.fc_all_gather, _DIMS),
    "fc.all_gather_tensor": Known("all_gather_single", calls.fc_all_gather, _DIMS),
    "fc.all_gather_tensor_autograd": Known("all_gather_single", calls.fc_all_gather, _DIMS),
    "fc.reduce_scatter_single": Known("reduce_scatter_single", calls.fc_reduce_scatter, _SCATTERED),
    "fc.reduce_scatter_single_autograd": Known(
        "reduce_scatter_single", calls.fc_reduce_scatter, _SCATTERED
    ),
    "fc.reduce_scatter_tensor": Known("reduce_scatter_single", calls.fc_reduce_scatter, _SCATTERED),
    "fc.reduce_scatter_tensor_autograd": Known(
        "reduce_scatter_single", calls.fc_reduce_scatter, _SCATTERED
    ),
    "fc.all_to_all_single": Known("all_to_all_single", calls.fc_all_to_all_single, _SPLITS),
    "fc.all_to_all_single_autograd": Known(
        "all_to_all_single", calls.fc_all_to_all_single, _SPLITS
    ),
    "fc.permute_tensor": Known("permute", calls.fc_permute),
    "fc.all_reduce_coalesced": Known("all_reduce", calls.fc_all_reduce_coalesced, _PAIR),
    "fc.all_gather_single_coalesced": Known(
        "all_gather_single", calls.fc_all_gather_coalesced, _PAIR
    ),
    "fc.all_gather_into_tensor_coalesced": Known(
        "all_gather_single", calls.fc_all_gather_coalesced, _PAIR
    ),
    "fc.reduce_scatter_single_coalesced": Known(
        "reduce_scatter_single", calls.fc_reduce_scatter_coalesced, _PAIR
    ),
    "fc.reduce_scatter_tensor_coalesced": Known(
        "reduce_scatter_single", calls.fc_reduce_scatter_coalesced, _PAIR
    ),
    "ds._SeqAllToAll": Known("seq_all_to_all", calls.ds_seq_all_to_all, _SEQUENCE),
    "ds._DimZeroAllToAll": Known("dim_zero_all_to_all", calls.ds_dim_zero_class),
    "ds._dim_zero_all_to_all": Known("dim_zero_all_to_all", calls.ds_dim_zero_function),
}


@dataclass(frozen=True)
class Case:
    """One collective with its arguments, on one kind of group."""

    collective: str
    """`nn.all_gather`: short name of the module, name of the function."""
    variant: Variant
    group: str
    """Name of a partition of the ranks: `world`, `sp`."""
    layout: str = "contiguous"
    """Of the upstream gradients: one of `data.LAYOUTS`."""
    dtype: str = "float32"
    awaited: str = ""
    """How a functional collective is awaited: one of `awaiting.AWAITED`; empty for others."""

    @property
    def name(self) -> str:
        """`fc.broadcast/root=last,awaited=direct/sp/transposed/float32`; identifies the case."""
        awaited = f"awaited={self.awaited}" if self.awaited else ""
        arguments = ",".join(filter(None, (self.variant.label, awaited))) or "-"
        return "/".join((self.collective, arguments, self.group, self.layout, self.dtype))

    @property
    def fields(self) -> Dict[str, str]:
        """What a row of a record says of it."""
        return {
            "case": self.name,
            "collective": self.collective,
            "variant": self.variant.label,
            "group": self.group,
            "layout": self.layout,
            "dtype": self.dtype,
            "awaited": self.awaited,
        }


_PLAINEST = (("contiguous", "float32"),)
_FORMS = (*((layout, "float32") for layout in LAYOUTS), ("contiguous", "bfloat16"))


def cases(groups: Tuple[str, ...], modules: Tuple[str, ...] = tuple(MODULES)) -> List[Case]:
    """Every case of the known collectives that this process's versions have."""
    return [
        Case(collective, variant, group, layout, dtype, awaited)
        for collective, known in KNOWN.items()
        if _module(collective) in modules and function_of(collective) is not None
        for variant in known.variants
        for awaited in (AWAITED if _module(collective) == "fc" else ("",))
        for group in groups
        if group != "world" or variant.root_by == "world"  # there, both ranks are the same
        for layout, dtype in _forms_of(variant)
    ]


def _forms_of(variant: Variant) -> Tuple[Tuple[str, str], ...]:
    """Layouts of the upstream gradient and dtypes: a use makes its own layout, which is the point,
    and how the root is named has nothing to do with either.
    """
    return _PLAINEST if variant.use or variant.root_by == "group" else _FORMS


def absent(modules: Tuple[str, ...] = tuple(MODULES)) -> List[str]:
    """Known collectives that this process's versions do not have."""
    return [name for name in KNOWN if _module(name) in modules and function_of(name) is None]


def unknown(modules: Tuple[str, ...] = tuple(MODULES)) -> List[str]:
    """Public collectives of the modules that are not known here: a later version's additions."""
    return [
        f"{short}.{name}"
        for short in modules
        for name in _collectives_in(short)
        if f"{short}.{name}" not in KNOWN
    ]


def function_of(collective: str) -> Any:
    """The function (or autograd class) itself; None where the version has none."""
    short, _, name = collective.partition(".")
    module = _imported(short)
    return None if module is None else getattr(module, name, None)


def _module(collective: str) -> str:
    return collective.partition(".")[0]


def _imported(short: str) -> Any:
    try:
        return importlib.import_module(MODULES[short])
    except ImportError:
        return None


def _collectives_in(short: str) -> Iterator[str]:
    """Names of what looks like a collective with autograd in a module."""
    module = _imported(short)
    for name, thing in vars(module).items() if module is not None else ():
        if getattr(thing, "__module__", None) != MODULES[short]:
            continue
        if short == "ds":
            if inspect.isclass(thing) and _is_autograd_function(thing):
                yield name
        elif inspect.isfunction(thing) and not name.startswith("_") and _takes_group(thing):
            yield name


def _takes_group(function: Any) -> bool:
    # in-place forms are what the compiler rewrites calls of torch.distributed to
    return "group" in inspect.signature(function).parameters and not function.__name__.endswith(
        "_inplace"
    )


def _is_autograd_function(thing: Any) -> bool:
    import torch

    return issubclass(thing, torch.autograd.Function)
