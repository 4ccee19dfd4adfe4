import torch
import torch.distributed as dist


def aggregate(loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """This rank's share of the mean loss; the mean itself is the sum over the group."""
    count = tokens.clone()
    dist.all_reduce(count, group=group)
    return loss * tokens / count
