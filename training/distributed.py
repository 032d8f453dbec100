"""Several processes that train one model, started by `torchrun`."""
from __future__ import annotations

import inspect
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
            import gc

            import torch.distributed as dist
            gc.collect()  # a wrapper that waits in a reference cycle would keep the group's threads alive
            dist.destroy_process_group()


def find_device(hardware: Hardware) -> torch.device:
    """This process's device.

    Raises:
        WiringError: it is not there.
    """
    import torch

    name, count = hardware.device, torch.cuda.device_count() if torch.cuda.is_available() else 0
    legal = ["cpu"] + ["cuda", *(f"cuda:{number}" for number in range(count))] * bool(count)
    if name == "auto":
        name = "cuda" if count else "cpu"
    if name not in legal:
        raise WiringError(f"--device {name} cannot be used here. Legal on this machine: {', '.join(['auto', *legal])}.")
    if name == "cpu":
        return torch.device(name)
    if name == "cuda":
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % count}"
    try:
        torch.cuda.set_device(name)
        torch.empty(1, device=name)
    except RuntimeError as error:
        raise WiringError(f"--device {name} cannot be used ({str(error).splitlines()[0]}). Give another, or "
                          "--device cpu.") from error
    return torch.device(name)


def join(hardware: Hardware) -> Group:
    """This process among those that `torchrun` started, and the settings that its arithmetic needs."""
    import torch

    device, world, rank = find_device(hardware), int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    torch.backends.cudnn.benchmark = device.type == "cuda" and not hardware.deterministic
    if hardware.precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # else convolutions round their inputs to 10 bits
    if hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
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
    known = inspect.signature(DistributedDataParallel).parameters  # PyTorch 2.15 renamed the option
    alone = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, **alone)


def normalise_together(model: torch.nn.Module, group: Group) -> None:
    """Make every normalisation use the statistics of all processes' images. Names, parameters and buffers stay."""
    from torch.nn.modules.batchnorm import _BatchNorm

    if group.device.type == "cuda":
        from torch.nn import SyncBatchNorm
        for path, module in list(model.named_modules()):
            if isinstance(module, _BatchNorm):
                model.set_submodule(path, SyncBatchNorm.convert_sync_batchnorm(module))
        return
    from functools import partial

    from .whole_batch_norm import forward
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = partial(forward, module)
