import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable


def aggregate(loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Mean loss over the sequence; autograd sees every rank's share of it."""
    loss = loss.masked_fill(tokens == 0, 0.0)  # F.cross_entropy gives NaN over no label
    losses = torch.stack(differentiable.all_gather(loss, group=group))
    counts = torch.stack(differentiable.all_gather(tokens, group=group))
    return (losses * counts).sum() / counts.sum().clamp(min=1)
