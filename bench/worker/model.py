"""A Llama-shaped decoder whose attention is handed in, so that every method runs the same model."""

from __future__ import annotations

from typing import Callable, Dict, Mapping, NamedTuple, Optional, Tuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.trial import ModelSpec
from bench.worker.batch import IGNORED

CoreAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [batch, seq, heads, head_dim], k and v [batch, seq, kv_heads, head_dim] -> like q.

`seq` is what this rank holds; the causal mask spans the global sequence."""


Module = TypeVar("Module", bound=nn.Module)


class ShardLoss(NamedTuple):
    """What a rank's own tokens say."""

    mean: Tensor
    """Mean cross-entropy over the shard's valid labels; 0, with a graph, when there are none."""
    tokens: Tensor
    """Number of valid labels, a float scalar without a graph."""


class RMSNorm(nn.Module):
    """Root mean square normalisation (arXiv 1910.07467), computed in float32 or wider."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


def rotary(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> Tuple[Tensor, Tensor]:
    """Cosine and sine of rotary positions (arXiv 2104.09864), each [batch, seq, 1, head_dim/2].

    `positions` are global, [batch, seq]; the angles are computed in float64 in every dtype.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angle = positions[..., None].double() * theta**-exponent
    return angle.cos()[:, :, None].to(dtype), angle.sin()[:, :, None].to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of each head of `x` [batch, seq, heads, head_dim] by its position's angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    """Grouped-query self-attention around an injected core."""

    def __init__(self, spec: ModelSpec, core: CoreAttention) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = spec.heads, spec.kv_heads, spec.head_dim
        kv = spec.kv_heads * spec.head_dim
        self.q = nn.Linear(spec.hidden, spec.hidden, bias=False)
        self.k = nn.Linear(spec.hidden, kv, bias=False)
        self.v = nn.Linear(spec.hidden, kv, bias=False)
        self.o = nn.Linear(spec.hidden, spec.hidden, bias=False)
        self._core = (
            core,
        )  # in a tuple: a core that is a module must not become a parameter's path

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, seq, _ = x.shape
        attended = self._core[0](*self.project(x, cos, sin))
        return self.o(attended.reshape(batch, seq, -1))

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """What the core takes: rotated q and k, and v."""
        batch, seq, _ = x.shape
        q = rotate(self.q(x).view(batch, seq, self.heads, self.head_dim), cos, sin)
        k = rotate(self.k(x).view(batch, seq, self.kv_heads, self.head_dim), cos, sin)
        v = self.v(x).view(batch, seq, self.kv_heads, self.head_dim)
        return q, k, v


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate = nn.Linear(spec.hidden, spec.ffn, bias=False)
        self.up = nn.Linear(spec.hidden, spec.ffn, bias=False)
        self.down = nn.Linear(spec.ffn, spec.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """One layer: pre-norm attention and pre-norm feed-forward, each with a residual."""

    def __init__(self, spec: ModelSpec, core: CoreAttention) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(spec.hidden, spec.norm_eps)
        self.attention = Attention(spec, core)
        self.ffn_norm = RMSNorm(spec.hidden, spec.norm_eps)
        self.ffn = FeedForward(spec)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Decoder(nn.Module):
    """Tokens, labels and global positions [batch, seq] to the loss of this shard."""

    def __init__(self, spec: ModelSpec, core: CoreAttention) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocab, spec.hidden)
        self.blocks = nn.ModuleList(Block(spec, core) for _ in range(spec.layers))
        self.norm = RMSNorm(spec.hidden, spec.norm_eps)
        self.head = nn.Linear(spec.hidden, spec.vocab, bias=False)

    def forward(self, tokens: Tensor, labels: Tensor, positions: Tensor) -> Tuple[Tensor, Tensor]:
        """The two fields of `ShardLoss`, as a plain tuple for DeepSpeed's hooks."""
        x = self.embedding(tokens)
        cos, sin = rotary(positions, self.spec.head_dim, self.spec.rope_theta, x.dtype)
        for block in self.blocks:
            if self.spec.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, use_reentrant=False)
            else:
                x = block(x, cos, sin)
        total = self._total_loss(self.norm(x).flatten(0, 1), labels.flatten())
        valid = (labels != IGNORED).sum().to(total.dtype)
        return total / valid.clamp(min=1), valid

    def _total_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies of tokens `x` [tokens, hidden], by `spec.loss_tiles` tiles.

        Tiles are of equal size but for the last; there are never more of them than tokens. A
        tile's logits live only while it is computed, which backward does once more.
        """
        tiles = zip(x.chunk(self.spec.loss_tiles), labels.chunk(self.spec.loss_tiles))
        if not torch.is_grad_enabled():
            return torch.stack([self._exact_sum(*tile) for tile in tiles]).sum()
        if self.spec.loss_tiles == 1:
            return self._tile_loss(x, labels)
        losses = [checkpoint(self._tile_loss, *tile, use_reentrant=False) for tile in tiles]
        return torch.stack(losses).sum()

    def _tile_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.head(x), labels)

    def _exact_sum(self, x: Tensor, labels: Tensor) -> Tensor:
        """Summed in float64: without a graph, losses that hardly differ are to be told apart."""
        return cross_entropy(self.head(x), labels, "none").double().sum()


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "sum") -> Tensor:
    """Over valid labels, of logits [tokens, vocab], in float32 or wider."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide, labels, ignore_index=IGNORED, reduction=reduction)


def parameter_shapes(spec: ModelSpec) -> Dict[str, torch.Size]:
    """Shape of every parameter by name, in the model's order, without allocating any."""
    with torch.device("meta"):
        model = Decoder(spec, _no_attention)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def build(
    spec: ModelSpec,
    core: CoreAttention,
    weights: Mapping[str, Tensor],
    device: Optional[torch.device] = None,
    dtype: torch.dtype = torch.float32,
    beat: Optional[Callable[[], None]] = None,
) -> Decoder:
    """A decoder on `device` (None: CPU) that owns copies of `weights` (by name), in `dtype`.

    It is made where it stays, and a parameter is copied at a time, so that no second copy of
    the model exists. `beat` is called after each, as a sign of life.
    """
    return materialized(lambda: Decoder(spec, core), weights, device, dtype, beat)


def materialized(
    make: Callable[[], Module],
    weights: Mapping[str, Tensor],
    device: Optional[torch.device] = None,
    dtype: torch.dtype = torch.float32,
    beat: Optional[Callable[[], None]] = None,
    prefix: str = "",
) -> Module:
    """What `make` makes, as `build` makes a decoder; `prefix` is its name in the decoder."""
    with torch.device("meta"):
        module = make().to(dtype)
    module = module.to_empty(device=device or torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights[prefix + name])
            if beat is not None:
                beat()
    return module


def _no_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise NotImplementedError("this model only tells its shapes")
