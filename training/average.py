"""A moving average of what a model learns, which is what is validated, saved and scored."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class MovingAverage:
    """Exponential moving average of some of a model's tensors: after each step, average += (1 - decay) (now - average)."""

    def __init__(self, model: torch.nn.Module, names: Iterable[str], decay: float):
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        state = model.state_dict()  # shares the model's memory
        self.now = {name: state[name] for name in sorted(names) if state[name].is_floating_point()}
        self.tensors = {name: tensor.clone() for name, tensor in self.now.items()}
        self.step = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        self.step(list(self.tensors.values()), list(self.now.values()), None)

    def go_on(self, now: Mapping[str, torch.Tensor]) -> None:
        """After a pause: the model, which was saved as its average, gets back the tensors it had."""
        for name, tensor in now.items():
            self.now[name].copy_(tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model holds the average."""
        kept = {name: tensor.clone() for name, tensor in self.now.items()}
        self.go_on(self.tensors)
        try:
            yield
        finally:
            self.go_on(kept)
