import torch
import torch.distributed as dist


def aggregate(loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """This rank's share of the mean loss; the mean itself is the sum over the group."""
    loss = loss.masked_fill(tokens == 0, 0.0)  # F.cross_entropy gives NaN over no label
    count = tokens.clone()
    dist.all_reduce(count, group=group)
    return loss * tokens / count.clamp(min=1)
