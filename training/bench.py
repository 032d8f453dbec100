"""`wiring bench train`: how fast images are fed and learned from, and how the reference work's manner compares."""
from dataclasses import dataclass, replace
from typing import Annotated, Optional

import typer


def train(
    recipe: Annotated[str, typer.Option(help="What to train; compared with the same recipe when everything learns.")]
        = "wiring-ct",
    image_size: Annotated[Optional[int], typer.Option(show_default="224 on CUDA, 64 on a CPU")] = None,
    batch_size: Annotated[Optional[int], typer.Option(show_default="256 on CUDA, 32 on a CPU")] = None,
    data: Annotated[Optional[str], typer.Option(help="Images for loader and end to end.",
                                                show_default="2,048 JPEGs of 500x375 made for the purpose")] = None,
    reference: Annotated[bool, typer.Option(
        "--reference", help="Train in the reference trainer's manner too: fp32, NCHW, anomaly detection, .item() at "
                            "every step.")] = False,
    rounds: Annotated[int, typer.Option(help="Times that each is measured, in turns; the median is shown.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (bf16 on CUDA, else fp32), bf16 or fp32.")] = "auto",
    compile_: Annotated[str, typer.Option("--compile", help="torch.compile: auto (on CUDA), yes or no.")] = "auto",
) -> None:
    """Images per second of the loader alone, of training alone on synthetic input, and of both together."""
    from wiring_plugins import load_registry

    from .condition import Condition, Hardware
    from .distributed import join
    from .loop import enough_memory, untrained

    hardware = Hardware(device=device, precision=precision, compile=compile_)
    group = join(hardware)
    on_gpu = group.device.type == "cuda"
    condition = Condition(image_size=image_size or (224 if on_gpu else 64),
                          batch_size=batch_size or (256 if on_gpu else 32))
    registry = load_registry()
    learned = untrained(recipe, registry)
    everything = replace(learned, name=f"{learned.name}, all learn", trainable=tuple(
        sorted({path.split(".")[0] for path in registry.architecture(learned.architecture).module_paths()})))
    with enough_memory(condition, "Give a smaller --batch-size."):
        _Bench(registry, condition, hardware, group, rounds).run([learned, everything], data, reference)


@dataclass(frozen=True)
class _Row:
    """rate: images a second. flops: operations per image; 0 for what does not train. memory: the GPU's bytes at the peak."""

    what: str
    rate: float
    flops: float = 0.0
    memory: int | None = None


class _Bench:
    def __init__(self, registry, condition, hardware, group, rounds: int):
        self.registry, self.condition, self.hardware = registry, condition, hardware
        self.group, self.rounds = group, rounds

    def run(self, recipes, data: str | None, reference: bool) -> None:
        from .flops import step_flops
        images = self._images(data)
        learners = {recipe.name: self._learner(recipe, len(images.classes)) for recipe in recipes}
        flops = {recipe.name: step_flops(recipe, self.registry, self.condition.image_size) for recipe in recipes}
        batch = self._batch(len(images.classes))
        steps = {name: (lambda learner=learner: learner.learn(batch)) for name, learner in learners.items()}
        if reference:
            plain = self._learner(recipes[0], len(images.classes), fp32=True)
            steps["reference manner"] = _reference_step(plain, batch)
            flops["reference manner"] = flops[recipes[0].name]
        rows = [_Row(f"training alone: {name}", self.condition.batch_size / seconds, flops[name], memory)
                for name, (seconds, memory) in self._in_turns(steps).items()]
        loader = self._loader(images)
        rows.insert(0, _Row("loader alone", self._feed(loader, lambda batch: None)))
        together = self._feed(loader, learners[recipes[0].name].learn)
        rows.append(_Row(f"end to end: {recipes[0].name}", together, flops[recipes[0].name]))
        loader.close()
        self._show(rows, images.decoder, reference)

    def _in_turns(self, steps) -> dict[str, tuple[float, int | None]]:
        """Median seconds of one step of each, and the peak of memory. Warm-up, and compiling, come before."""
        from statistics import median

        import torch
        for step in steps.values():
            step()
            step()
        times, memory = {name: [] for name in steps}, {name: None for name in steps}
        for _ in range(self.rounds):
            for name, step in steps.items():
                if self.group.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                times[name].append(self._seconds(step))
                if self.group.device.type == "cuda":
                    memory[name] = torch.cuda.max_memory_allocated()
        return {name: (median(taken), memory[name]) for name, taken in times.items()}

    def _seconds(self, step) -> float:
        """Seconds of one step, over enough of them to take a second on a GPU, and over one on a CPU."""
        import time
        repeats = 20 if self.group.device.type == "cuda" else 1
        self._wait()
        begun = time.perf_counter()
        for _ in range(repeats):
            step()
        self._wait()
        return (time.perf_counter() - begun) / repeats

    def _feed(self, loader, use) -> float:
        """Images a second, over one pass or more until 10 seconds are over; what is decoded ahead is warm-up."""
        import time
        from itertools import chain, count, islice

        from .loader import AHEAD
        batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
        for batch in islice(batches, 1 + AHEAD):
            use(batch)
        self._wait()
        seen, begun = 0, time.perf_counter()
        for batch in batches:
            use(batch)
            seen += batch.size
            if seen >= len(loader.chosen) and time.perf_counter() - begun > 10 or time.perf_counter() - begun > 20:
                break
        self._wait()
        return seen / (time.perf_counter() - begun)

    def _wait(self) -> None:
        import torch
        if self.group.device.type == "cuda":
            torch.cuda.synchronize()

    def _learner(self, recipe, classes: int, *, fp32: bool = False):
        from pathlib import Path

        from wiring_plugins import WeightsRef

        from .checkpoint import Run
        from .learner import Learner
        compiled = not fp32 and (self.hardware.compile == "yes"
                                 or self.hardware.compile == "auto" and self.group.device.type == "cuda")
        born = replace(recipe, classes=classes, weights=WeightsRef(),
                       batch_norm=replace(recipe.batch_norm, statistics="unit", affine="unit"))
        condition = replace(self.condition, lr=1e-3)  # speed does not depend on it, and nothing may overflow
        hardware = replace(self.hardware, precision="fp32") if fp32 else self.hardware
        return Learner(born, self.registry, condition, hardware, self.group, Run(Path("bench")), facts={},
                       compiled=compiled)

    def _batch(self, classes: int):
        import torch

        from .layout import memory_layout
        from .loader import Batch
        size, count = self.condition.image_size, self.condition.batch_size
        images = torch.randn(count, 3, size, size, device=self.group.device)
        images = images.contiguous(memory_format=memory_layout(self.group.device))
        return Batch(images, torch.arange(count, device=self.group.device) % classes, count)

    def _images(self, data: str | None):
        from .data import open_data
        return open_data(data, "train") if data else _made_jpegs()

    def _loader(self, images):
        import numpy as np

        from .loader import Loader
        hardware = replace(self.hardware, hold="no")
        return Loader(images, np.arange(len(images)), self.condition, hardware, device=self.group.device,
                      mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), train=True)

    def _show(self, rows: list[_Row], decoder: str, reference: bool) -> None:
        from rich.console import Console
        from rich.table import Table

        from .flops import measured_flops, peak_flops
        from .meter import device_name
        peak, sheet = peak_flops(self.group.device), "data sheet, dense bf16"
        if peak is None:
            peak, sheet = measured_flops(self.group.device), "measured here, fp32 matrix product"
        print(f"{device_name(self.group.device)}: {self.condition.image_size} px, batch {self.condition.batch_size}, "
              f"decoder {decoder}, peak {peak / 1e12:.3g} TFLOP/s ({sheet})")
        known = ["memory"] if any(row.memory for row in rows) else []  # PyTorch counts that of GPUs only
        table = Table("", "images/s", "TFLOP/s", "MFU", *known, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            speed = row.rate * row.flops
            table.add_row(row.what, f"{row.rate:,.1f}", f"{speed / 1e12:.3g}" if speed else "",
                          f"{speed / peak:.0%}" if speed else "", f"{row.memory / 1e9:.1f} GB" if row.memory else "")
        Console().print(table)
        alone = [row for row in rows if row.what.startswith("training alone")]
        print(f"{alone[0].rate / alone[1].rate:.2f} times as fast as when all learns "
              f"(operations: {alone[1].flops / alone[0].flops:.2f} times fewer); "
              f"end to end {rows[-1].rate / alone[0].rate:.0%} of training alone"
              + (f"; {alone[0].rate / alone[2].rate:.2f} times the reference manner" if reference else ""))


def _made_jpegs():
    """2,048 labelled JPEGs of ImageNet's usual shape, made of blurred noise; 32 different ones, in memory."""
    import io

    import numpy as np
    from PIL import Image

    from .data import ImageSet
    rng = np.random.RandomState(0)
    files = []
    for _ in range(32):
        small = Image.fromarray(rng.randint(0, 256, (47, 63, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())

    class Made(ImageSet):
        def encoded(self, index: int) -> bytes:
            return files[index % len(files)]

        def name(self, index: int) -> str:
            return f"made image {index}"

    return Made("made", [str(number) for number in range(1000)], np.arange(2048) % 1000)


def _reference_step(learner, batch):
    """One step as the reference trainer takes it: fp32 in PyTorch's own layout, cuDNN untuned, anomaly detection on, an
    optimiser that is not fused, and the loss and two accuracies fetched at once."""
    import torch
    import torch.nn.functional as F

    model = learner.model.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3,
                                momentum=0.9, weight_decay=1e-4)
    images = batch.images.contiguous()

    def step() -> None:
        tuned, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        with torch.autograd.set_detect_anomaly(True):
            logits = model(images)
            loss = F.cross_entropy(logits, batch.labels)
            hits = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
            float(loss.item()), hits[:, 0].sum().item(), hits.any(1).sum().item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.backends.cudnn.benchmark = tuned
    return step
