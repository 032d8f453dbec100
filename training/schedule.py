"""The learning rate: a plateau rule with a memory that can be saved."""
from __future__ import annotations

from dataclasses import dataclass

THRESHOLD = 1e-4
"""How much smaller, relatively, a loss has to be to count as progress (the default of PyTorch's ReduceLROnPlateau)."""


@dataclass
class Plateau:
    """A tenth of the rate after more than `patience` epochs without progress; converged when it is below `min_lr`."""

    lr: float
    patience: int
    min_lr: float
    best: float = float("inf")
    bad_epochs: int = 0
    decays: int = 0

    @property
    def rate(self) -> float:
        return self.lr / 10 ** self.decays  # a quotient, so that 0.1 after three decays is 1e-4 and not a hair more

    @property
    def converged(self) -> bool:
        return self.rate < self.min_lr * (1 - 1e-9)

    def step(self, loss: float) -> None:
        """Take note of one epoch's loss."""
        if loss < self.best * (1 - THRESHOLD):
            self.best, self.bad_epochs = loss, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.decays, self.bad_epochs = self.decays + 1, 0
