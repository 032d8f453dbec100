"""Several processes that train one model, started by `torchrun`."""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wiring_plugins import WiringError

if TYPE_CHECKING:
    import torch

    from .condition import Hardware


@dataclass(frozen=True)
class Group:
    """The processes of one training. `rank` counts from 0, and 0 is the one that writes."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.world > 1:
            import torch.distributed as dist
            dist.all_reduce(tensor)
        return tensor

    def agree(self, value):
        """What the leading process says, in every process."""
        if self.world == 1:
            return value
        import torch.distributed as dist
        said = [value]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def gather(self, value) -> list:
        if self.world == 1:
            return [value]
        import torch.distributed as dist
        said = [None] * self.world
        dist.all_gather_object(said, value)
        return said

    def close(self) -> None:
        if self.world > 1:
            import torch.distributed as dist
            dist.destroy_process_group()


def join(hardware: Hardware) -> Group:
    """Find the device, and the other processes if `torchrun` started this one.

    Raises:
        WiringError: the device is not there.
    """
    import torch

    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    name = hardware.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            if device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise WiringError(f"--device {name} cannot be used here ({str(error).splitlines()[0]}). "
                          "Legal: auto, cpu, and cuda or cuda:N on a machine with a GPU.") from error
    if world > 1:
        import torch.distributed as dist
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(rank, world, device)


def share(model: torch.nn.Module, group: Group, *, local_batch_norm: bool) -> torch.nn.Module:
    """The model as one of a group: gradients of what learns are averaged, and batches are normalised as one batch."""
    if group.world == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    if not local_batch_norm:
        normalise_together(model, group)
    devices = [group.device.index] if group.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)


def normalise_together(model: torch.nn.Module, group: Group) -> None:
    """Make every normalisation use the statistics of all processes' images. Names, parameters and buffers stay."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    if group.device.type == "cuda":
        from torch.nn import SyncBatchNorm
        for path, module in list(model.named_modules()):
            if isinstance(module, _BatchNorm):
                model.set_submodule(path, SyncBatchNorm.convert_sync_batchnorm(module))
        return
    for module in model.modules():  # PyTorch's own SyncBatchNorm refuses the CPU
        if isinstance(module, _BatchNorm):
            module.forward = _Together(module)
    torch.distributed.barrier()


class _Together:
    """The forward pass of a batch normalisation over the images of all processes."""

    def __init__(self, norm: torch.nn.Module):
        self.norm = norm

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch
        import torch.nn.functional as F
        from torch.distributed.nn.functional import all_reduce

        norm = self.norm
        if not norm.training:
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        count = x.new_tensor([x.numel() / x.shape[1]])
        total = all_reduce(torch.cat([x.sum(dim=(0, 2, 3)), count]))
        count = total[-1]
        mean = total[:-1] / count
        centred = x - mean[:, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
            norm.num_batches_tracked += 1
        scale = norm.weight * (variance + norm.eps).rsqrt()
        return centred * scale[:, None, None] + norm.bias[:, None, None]
