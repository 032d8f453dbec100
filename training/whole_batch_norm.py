"""Batch normalisation over the images of several processes on CPUs, which PyTorch's own SyncBatchNorm refuses."""
from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F


class AllSum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def forward(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What `norm` would give for all processes' images together: the part of it that belongs to `x`, (n, features, ...)."""
    if not norm.training:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    others = [0, *range(2, x.dim())]
    total = AllSum.apply(torch.cat([x.sum(others), x.new_tensor([x.numel() / x.shape[1]])]))
    count = total[-1].detach()
    mean = total[:-1] / count
    centred = x - _along(mean, x)
    variance = AllSum.apply(centred.square().sum(others)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        part = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, part)
        norm.running_var.lerp_(variance * count / (count - 1), part)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return centred * _along(scale, x) + _along(norm.bias, x)


def _along(features: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One number a feature, shaped to be combined with (n, features, ...)."""
    return features.view(-1, *[1] * (x.dim() - 2))
