"""The peak of a rank's memory by component, of the training step that spbench runs.

A step has a few moments at which memory may be highest; the prediction is the highest of them.
What lives at each was counted from the code, tensor by tensor: `bench/worker/model.py` with
autograd's rules of what is saved for backward, and DeepSpeed 0.18.2's `zero/stage_1_and_2.py`,
`zero/stage3.py` and `bf16_optimizer.py` with their defaults and torch's Adam. Nothing is fitted.
What a process holds besides (interpreter, transport buffers) is left out: 2 to 15 MiB were
seen, and up to 20 MiB where a memory limit counts what is allocated and never touched.

Symbols as in `bench.theory`; T = b S/P are a rank's tokens, W = world, P_m the parameters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Dict, List

from bench.theory.flops import layer_matmul_parameters, total_parameters

if TYPE_CHECKING:
    from bench.trial import Configuration, ModelSpec

REDUCE_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default of `zero_optimization.reduce_bucket_size`."""
SUB_GROUP_ELEMENTS = 10**9
"""DeepSpeed's default of `zero_optimization.sub_group_size`."""
FLOAT32 = 4
"""Bytes of an element in Adam's state and in the loss, whatever the dtype of the model."""
LOSS_COPIES = 3
"""Of a tile's logits, in float32, as its backward starts: log-softmax, the gradient that comes
in, and the gradient that goes out."""


@dataclass(frozen=True)
class PeakMemory:
    """Bytes per rank at one moment of a step, by component."""

    moment: str
    """`loss`, `head`, `layer`, `last layer`, `reduction` or `optimizer`."""
    weights: int
    gradients: int
    optimizer: int
    """Adam's moments, float32 copies of the weights, and what its step needs on the way."""
    buffers: int
    """DeepSpeed's own: reduce bucket, gathered weights of ZeRO 3."""
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Bytes of all components."""
        return sum(self.components().values())

    def components(self) -> Dict[str, int]:
        """Bytes by component."""
        return {name: value for name, value in asdict(self).items() if name != "moment"}


@dataclass(frozen=True)
class Training:
    """What a step's memory depends on."""

    model: ModelSpec
    world: int
    sp: int
    zero: int
    micro_batch: int
    seq_len: int
    element_bytes: int
    """Of weights and activations: 4 or 2."""
    reduce_bucket: int = REDUCE_BUCKET_ELEMENTS
    """DeepSpeed's `reduce_bucket_size` [elements]."""
    whole_bucket: bool = True
    """Whether a reduce bucket counts as a whole (a GPU, a memory limit), or only the part of it
    that is ever written to (resident memory of a CPU process)."""
    foreach: bool = True
    """Whether Adam steps through lists of all its tensors at once (torch's default on a GPU), or
    tensor by tensor (its default on CPU)."""
    sub_group: int = SUB_GROUP_ELEMENTS
    """DeepSpeed's `sub_group_size`: ZeRO 3 steps through its partition in such parts [elements]."""

    @property
    def tokens(self) -> int:
        """Of one rank."""
        return self.micro_batch * self.seq_len // self.sp

    @property
    def parameters(self) -> int:
        """Of the model [elements]."""
        return total_parameters(self.model)

    @property
    def partition(self) -> int:
        """Parameters of one rank's ZeRO partition, rounded up [elements]."""
        return -(-self.parameters // self.world)

    @property
    def stepped(self) -> int:
        """Parameters that ZeRO hands Adam at once: its partition, or a part of it in ZeRO 3."""
        return min(self.partition, self.sub_group) if self.zero == 3 else self.partition


def peak_memory(training: Training) -> PeakMemory:
    """The moment of a step at which a rank's memory is highest."""
    return max(moments(training), key=lambda moment: moment.total)


def moments(training: Training) -> List[PeakMemory]:
    """Memory at every moment that may be the highest, in the order of a step."""
    t, model = training, training.model
    e, head = t.element_bytes, t.model.vocab * t.model.hidden * t.element_bytes
    base = _between_steps(t)
    in_step = replace(base, buffers=base.buffers + _gathered(t))
    in_backward = replace(in_step, buffers=in_step.buffers + _bucket_of_backward(t))
    saved, live = saved_activation_bytes(t), layer_activation_bytes(t)
    tile = FLOAT32 * -(-t.tokens // model.loss_tiles) * model.vocab
    tiled = model.loss_tiles > 1
    loss = replace(
        in_backward,
        moment="loss",
        gradients=base.gradients + (head if tiled else 0),
        activations=saved,
        logits=LOSS_COPIES * tile if tiled else _whole_loss(t),
    )
    weight_gradient = replace(
        loss,
        moment="head",
        gradients=loss.gradients + head,
        logits=tile + (tile * e // FLOAT32 if e < FLOAT32 else 0),
    )
    flowing = e * t.tokens * (2 * model.ffn + 2 * model.hidden)
    inputs = e * t.tokens * model.hidden if model.activation_checkpointing else live
    layer = replace(
        in_backward,
        moment="layer",
        gradients=base.gradients + head,
        activations=(model.layers - 1) * inputs + live + flowing,
    )
    above = (model.layers - 1) * layer_matmul_parameters(model) * e
    last_layer = replace(
        in_backward,
        moment="last layer",
        gradients=base.gradients + _unreduced(t, head + above),
        activations=live + flowing,
    )
    return [loss, weight_gradient, layer, last_layer, _reduction(t, in_backward), _optimizer(t)]


def layer_activation_bytes(training: Training) -> int:
    """What one layer keeps for its backward.

    Each norm keeps its input in float32 and two results: (4 + 2e) h a token. Attention keeps q
    and k before their rotation, then q, k, v and the result as the attention kernel sees them,
    with heads repeated, and the result as it comes back from the other ranks; the kernel's
    log-sum-exp is float32. The SwiGLU keeps 4 f.
    """
    t, model = training, training.model
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    attention = query + key + 3 * query + 2 * query
    norms = 2 * (FLOAT32 + 2 * t.element_bytes) * model.hidden
    width = norms + t.element_bytes * (attention + 4 * model.ffn) + FLOAT32 * model.heads
    return t.tokens * width


def saved_activation_bytes(training: Training) -> int:
    """What the layers and the last norm keep from forward to backward.

    With activation checkpointing a layer keeps its input alone.
    """
    t, model = training, training.model
    last_norm = t.tokens * (FLOAT32 + 2 * t.element_bytes) * model.hidden
    if model.activation_checkpointing:
        return model.layers * t.element_bytes * t.tokens * model.hidden + last_norm
    return model.layers * layer_activation_bytes(t) + last_norm


def _whole_loss(t: Training) -> int:
    """All logits at once: three copies in backward; in forward, in 16 bit, 2 + 4 + 4 bytes."""
    return LOSS_COPIES * FLOAT32 * t.tokens * t.model.vocab


def _between_steps(t: Training) -> PeakMemory:
    """What a rank holds before a step.

    ZeRO 1 and 2 keep a float32 copy of their partition in every dtype; ZeRO 3 in float32
    updates its own in place, and keeps its gradients' partition and its bucket throughout.
    ZeRO 0 in 16 bit keeps the gradients, too.
    """
    e, all_, part = t.element_bytes, t.parameters, t.partition
    narrow = e < FLOAT32
    if t.zero == 0:
        state = (e * all_, e * all_ if narrow else 0, (12 if narrow else 8) * all_, 0)
    elif t.zero < 3:
        state = (e * all_, 0, 12 * part, 0)
    else:
        state = (e * part, e * part, (12 if narrow else 8) * part, e * _bucket(t))
    weights, gradients, optimizer, buffers = state
    return PeakMemory("between steps", weights, gradients, optimizer, buffers, 0, 0)


def _bucket(t: Training) -> int:
    """Elements of a reduce bucket that count."""
    return t.reduce_bucket if t.whole_bucket else min(t.parameters, t.reduce_bucket)


def _bucket_of_backward(t: Training) -> int:
    """The bucket that ZeRO 1 and 2 allocate as backward begins, where that counts already."""
    return t.element_bytes * t.reduce_bucket if t.zero in (1, 2) and t.whole_bucket else 0


def _gathered(t: Training) -> int:
    """ZeRO 3 keeps what it gathered in forward for backward (up to 1e9 parameters)."""
    return t.element_bytes * min(t.parameters, 10**9) if t.zero == 3 else 0


def _unreduced(t: Training, produced: int) -> int:
    """Bytes of gradients held when `produced` were computed: ZeRO 2 and 3 reduce on the way."""
    if t.zero < 2 or (t.zero == 2 and not t.whole_bucket):
        return produced
    return 0


def _reduction(t: Training, in_backward: PeakMemory) -> PeakMemory:
    """The end of backward: gradients, their copy in the bucket, and the reduced partition.

    ZeRO 0 flattens them all, ZeRO 1 moves them into its bucket one after another.
    """
    e, all_, part = t.element_bytes, t.parameters, t.partition
    moment = replace(in_backward, moment="reduction")
    if t.zero == 0:
        return replace(moment, gradients=e * all_, buffers=e * min(all_, t.reduce_bucket))
    if t.zero == 1:
        return replace(moment, gradients=e * (all_ + part))
    if t.zero == 2:
        written = 0 if t.whole_bucket else e * _bucket(t)
        return replace(moment, gradients=e * part, buffers=moment.buffers + written)
    return moment


def _optimizer(t: Training) -> PeakMemory:
    """Adam's step: the float32 gradient, and Adam's temporaries."""
    base, moment = _between_steps(t), "optimizer"
    if t.zero > 0:
        step = FLOAT32 * t.stepped + _temporaries(t)
        return replace(base, moment=moment, optimizer=base.optimizer + step)
    return replace(
        base,
        moment=moment,
        gradients=base.gradients + FLOAT32 * t.parameters,
        optimizer=base.optimizer + _temporaries(t),
    )


def _temporaries(t: Training) -> int:
    """What Adam allocates while it steps (torch 2.1 to 2.13, `optim/adam.py` and `adamw.py`).

    Tensor by tensor (`_single_tensor_adam`): the root of the second moment, and the root divided
    by its bias correction, of the largest tensor. As lists (`_multi_tensor_adam`): one root of
    every tensor, which is then changed in place. ZeRO hands Adam its partition as one tensor, or
    in ZeRO 3 a sub-group of it; without ZeRO Adam has all parameters, of which the largest is an
    embedding or in the SwiGLU.
    """
    if t.foreach:
        return FLOAT32 * (t.stepped if t.zero > 0 else t.parameters)
    largest = max(t.model.vocab * t.model.hidden, t.model.ffn * t.model.hidden)
    return 2 * FLOAT32 * (t.stepped if t.zero > 0 else largest)


def longest_sequence(training: Training, limit: int, step: int, most: int) -> int:
    """The longest sequence whose peak is within `limit` [bytes]: a multiple of `step` [tokens].

    0 where not even `step` tokens fit; never more than `most`.
    """

    def fits(units: int) -> bool:
        return peak_memory(replace(training, seq_len=units * step)).total <= limit

    low, high = 0, most // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * step


def training_of(configuration: Configuration, whole_bucket: bool = True) -> Training:
    """What `configuration` says of a step's memory."""
    c = configuration
    optimizer = c.deepspeed.get("optimizer")
    given = optimizer.get("params") if isinstance(optimizer, dict) else None
    asked = given.get("foreach") if isinstance(given, dict) else None
    options = c.deepspeed.get("zero_optimization")
    zero = options if isinstance(options, dict) else {}
    bucket, sub_group = zero.get("reduce_bucket_size"), zero.get("sub_group_size")
    return Training(
        c.model,
        c.world,
        c.sp,
        c.zero,
        c.micro_batch,
        c.seq_len,
        element_bytes=2 if c.dtype == "bfloat16" else 4,
        reduce_bucket=REDUCE_BUCKET_ELEMENTS if bucket is None else int(float(bucket)),
        whole_bucket=whole_bucket,
        foreach=c.comm.device == "cuda" if asked is None else bool(asked),
        sub_group=SUB_GROUP_ELEMENTS if sub_group is None else int(float(sub_group)),
    )
