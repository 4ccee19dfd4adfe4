import torch
import torch.distributed as dist


def aggregate(loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Mean loss over the sequence; autograd sees this rank's own share of it."""
    loss = loss.masked_fill(tokens == 0, 0.0)  # F.cross_entropy gives NaN over no label
    total, count = loss * tokens, tokens.clone()
    dist.all_reduce(total, group=group)  # in place: changes the value, not the graph
    dist.all_reduce(count, group=group)
    return total / count.clamp(min=1)
