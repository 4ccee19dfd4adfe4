import torch
import torch.distributed as dist


def aggregate(loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Mean loss over all valid tokens of all ranks; autograd sees this rank's own share of it.

    Replicas are averaged later on, so a share is back-propagated as often as there are replicas.
    """
    loss = loss.masked_fill(tokens == 0, 0.0)  # F.cross_entropy gives NaN over no label
    total, count = loss * tokens, tokens.clone()
    dist.all_reduce(total)  # over all ranks; in place: changes the value, not the graph
    dist.all_reduce(count)
    mean = total / count.clamp(min=1)
    scaled = mean * (dist.get_world_size() // dist.get_world_size(group))
    return scaled + (mean - scaled).detach()
