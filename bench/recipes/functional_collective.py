import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives


def aggregate(loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Mean loss over the sequence; autograd sees every rank's share of it."""
    loss = loss.masked_fill(tokens == 0, 0.0)  # F.cross_entropy gives NaN over no label
    gather = getattr(collectives, "all_gather_single_autograd", None)  # its newest name
    gather = gather or collectives.all_gather_tensor_autograd
    losses, counts = gather(loss.reshape(1), 0, group), gather(tokens.reshape(1), 0, group)
    return (losses * counts).sum() / counts.sum().clamp(min=1)
