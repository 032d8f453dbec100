"""What a person sees while a model learns."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
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
        step, now = event["step"], time.monotonic()
        rate = max(step - self.before[0], 0) / max(now - self.before[1], 1e-9)
        images = rate * self.condition.batch_size
        parts = [f"epoch {event['epoch']:.2f}", f"{images:,.1f} images/s"]
        if self.flops and event["epoch"] >= (self.condition.progressive or (0, 0))[1]:  # they are those of the full size
            parts.append(f"{images * self.flops / 1e12:.3g} TFLOP/s")
            if self.peak:
                parts.append(f"MFU {images * self.flops / self.peak:.0%}")
        parts += [f"loss {event['loss']:.3f}", f"top-1 {event['top1']:.1%}", f"lr {event['lr']:.0e}"]
        if rate:
            left = (self.condition.max_epochs * self.steps - step) / rate
            parts.append(f"{'at most ' if self.condition.epochs is None else ''}{_duration(left)} left")
        print("\r\x1b[K" + self._name(event) + "  ".join(parts), end="", file=sys.stderr, flush=True)

    def _epoch(self, event) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        found = event["validation"]
        seen = ""
        if found:
            seen = f"  validation loss {found['loss']:.3f} top-1 {found['top1']:.1%} top-5 {found['top5']:.1%}"
        print(f"{self._name(event)}epoch {event['epoch']:>3}  step {event['step']:>6,}  lr {event['lr']:.0e}  "
              f"training loss {event['loss']:.3f} top-1 {event['top1']:.1%}{seen}", flush=True)

    def _name(self, event) -> str:
        return f"{event['recipe']}  " if self.several else ""


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


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
