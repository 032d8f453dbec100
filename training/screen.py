"""What a person sees while a model learns."""
from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from wiring_plugins import Recipe, Registry

from .condition import Condition


class Screen:
    """Shows a training's events: a status line that is rewritten on a terminal, and one line an epoch anywhere."""

    def __init__(self, recipes: list[Recipe], registry: Registry, condition: Condition, peak: float | None = None):
        from .flops import step_flops
        self.flops = 0 if condition.cached_views else sum(step_flops(recipe, registry, condition.image_size)
                                                          for recipe in recipes)
        self.condition, self.peak, self.several = condition, peak, len(recipes) > 1
        self.steps, self.before, self.live = 1, None, sys.stderr.isatty()
        self.learning: dict[str, Mapping[str, Any]] = {}
        self.losses: dict[str, list[float]] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        show: Callable | None = getattr(self, f"_{event['event']}", None)
        if show:
            show(event)

    def _start(self, event) -> None:
        self.steps, self.before = event["steps_per_epoch"], (event["step"], time.monotonic())
        if event["reason"]:
            print(f"{event['recipe']} is finished: {event['reason']}, {event['step']:,} steps")
        elif event["step"]:
            print(f"{event['recipe']}: going on from step {event['step']:,}, in epoch {event['epoch'] + 1}")

    def _progress(self, event) -> None:
        if not self.live:
            return
        self.learning[event["recipe"]] = event
        if any(other["step"] < event["step"] for other in self.learning.values()):
            return  # one line tells of all recipes that learn
        step, now = event["step"], time.monotonic()
        rate = max(step - self.before[0], 0) / max(now - self.before[1], 1e-9)
        images = rate * self.condition.batch_size
        parts = [f"epoch {event['epoch']:.2f}", f"{images:,.{int(images < 100)}f} images/s"]
        if self.flops and event["epoch"] >= (self.condition.progressive or (0, 0))[1]:  # they are those of the full size
            flops = images * self.flops
            parts.append(f"MFU {flops / self.peak:.0%}" if self.peak else f"{flops / 1e12:.2g} TFLOP/s")
        parts += [self._of_each("loss", "loss", ".3f"), self._of_each("top-1", "top1", ".1%")]
        if rate:
            left = (self.condition.max_epochs * self.steps - step) / rate
            parts.append(f"{'<' if self.condition.epochs is None else ''}{timedelta(seconds=round(left))} left")
        parts.append(self._of_each("lr", "lr", ".0e"))
        line = "  ".join(parts)[:shutil.get_terminal_size().columns - 1]  # what is wrapped cannot be taken back
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def _of_each(self, name: str, key: str, form: str) -> str:
        """`loss 2.519`, or `loss 2.519/3.201` where several recipes learn, in their order."""
        return f"{name} {'/'.join(format(event[key], form) for event in self.learning.values())}"

    def _epoch(self, event) -> None:
        self.learning.pop(event["recipe"], None)
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self.losses.setdefault(event["recipe"], []).append(event["loss"])
        found = event["validation"]
        seen = ""
        if found:
            seen = f"  validation loss {found['loss']:.3f} top-1 {found['top1']:.1%} top-5 {found['top5']:.1%}"
        print(f"{self._name(event)}epoch {event['epoch']:>3}  step {event['step']:>6,}  lr {event['lr']:.0e}  "
              f"training loss {event['loss']:.3f} top-1 {event['top1']:.1%}{seen}", flush=True)

    def _end(self, event) -> None:
        losses = self.losses.get(event["recipe"], [])
        if losses and losses[-1] > losses[0]:
            print(f"{self._name(event)}The training loss grew from {losses[0]:.3f} to {losses[-1]:.3f}: the learning rate "
                  f"may be too high. Try --lr {self.condition.lr / 10:g}.")

    def _name(self, event) -> str:
        return f"{event['recipe']}  " if self.several else ""


def summary(results) -> str:
    """The ledgers of finished runs, as a table."""
    from .ledger import Ledger
    blocks = []
    for result in results:
        rows = [("ended", result.reason or "stopped; go on with --resume"),
                *Ledger.from_plain(dict(result.ledger)).lines()]
        if result.top1 is not None:
            rows.append(("validation top-1", f"{result.top1:.1%}"))
        width = max(len(name) for name, _ in rows)
        blocks.append("\n".join([f"{result.recipe.name} in {result.run}",
                                 *(f"  {name:<{width}}  {value}" for name, value in rows)]))
    return "\n\n".join(blocks)
