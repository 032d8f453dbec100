"""`wiring train`, `wiring export` and `wiring data`."""
from pathlib import Path
from typing import Annotated, Optional

import typer

from wiring_plugins import WiringError

from .condition import Condition, Hardware


def train(
    recipes: Annotated[list[str], typer.Argument(help="What to train, with or without @SOURCE; several learn from one "
                                                      "stream of images.")],
    data: Annotated[str, typer.Option(help="Image tree (CLASS/IMAGE, or train/ and val/ of such), pack, folder of .tar "
                                           "shards, .tar file, or synthetic:IMAGES[:CLASSES].")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; with several recipes, the folder of theirs.")],
    images: Annotated[str, typer.Option(help="How many training images, or `all`.")] = "all",
    subset: Annotated[str, typer.Option(help="uniform: at random. balanced: equally many of each class.")] = "uniform",
    epochs: Annotated[str, typer.Option(help="How many passes, or `converge`: until the learning rate has fallen below "
                                             "1e-4, at most 45.")] = "converge",
    first_epoch: Annotated[bool, typer.Option("--first-epoch", help="One pass, of which every tenth is kept.")] = False,
    patience_policy: Annotated[str, typer.Option(help="What the learning rate waits for. paper: the loss of an epoch's "
                                                      "last batch. validation: the validation loss.")] = "paper",
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adagrad.")] = "sgd",
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty of what learns.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(help="Images a step, over all GPUs together.")] = 256,
    image_size: Annotated[int, typer.Option(help="Side of the crops that the model sees, in pixels.")] = 224,
    source_size: Annotated[Optional[int], typer.Option(
        help="Side of the square that images are stored as, before they are cropped.",
        show_default="twice the image size, at most 256")] = None,
    validation_images: Annotated[Optional[int], typer.Option(
        help="How many validation images.", show_default="as many as training images")] = None,
    label_smoothing: Annotated[float, typer.Option(help="Off in the reference work.")] = 0.0,
    ema: Annotated[float, typer.Option(
        help="Validate and save a moving average of the weights, with this decay a step. Off in the reference work.")] = 0.0,
    progressive: Annotated[Optional[str], typer.Option(
        metavar="SIZE:EPOCHS", help="Crops begin at that size and grow to --image-size within so many epochs. Off in the "
                                    "reference work.")] = None,
    prune: Annotated[str, typer.Option(help="synflow: keep at birth only a part of the weights that learn.")] = "none",
    density: Annotated[float, typer.Option(help="Which part --prune keeps, above 0 and below 1.")] = 1.0,
    cached_views: Annotated[int, typer.Option(
        help="If only the decoder learns: compute the features of that many crops of each image once.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses, orders and crops the images; the recipe's own wires it.")] = 0,
    start: Annotated[Optional[str], typer.Option("--from", help="Run folder or weights file to continue from.")] = None,
    save_only: Annotated[bool, typer.Option("--save-only", help="Keep the weights of birth; train nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the run folder.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (bf16 on CUDA, else fp32), bf16 or fp32.")] = "auto",
    compile_: Annotated[str, typer.Option("--compile", help="torch.compile: auto, yes or no.")] = "auto",
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits each time, on CUDA too.")] = False,
    hold: Annotated[str, typer.Option(help="Keep decoded images in the device's memory: auto, yes or no.")] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that decode images.", show_default="one per core")] = 0,
    max_corrupt: Annotated[int, typer.Option(help="Unreadable images that are named and skipped.")] = 10,
    checkpoint_seconds: Annotated[float, typer.Option(help="Save at least this often.")] = 600.0,
    local_batch_norm: Annotated[bool, typer.Option(
        "--local-batch-norm", help="Several GPUs: each normalises by its own share of the batch.")] = False,
    slurm: Annotated[Optional[str], typer.Option(
        help="Submit to SLURM instead: gpus=8,nodes=1,hours=12,partition=NAME,cpus=8 (extra `slurm`).")] = None,
) -> None:
    """Train recipes under one condition. The defaults are the reference work's condition."""
    condition = Condition(
        images=_number("--images", images, "all"), subset=subset, epochs=_number("--epochs", epochs, "converge"),
        first_epoch=first_epoch, patience_policy=patience_policy, optimizer=optimizer, lr=lr, weight_decay=weight_decay,
        batch_size=batch_size, image_size=image_size, source_size=source_size or 0, validation_images=validation_images,
        label_smoothing=label_smoothing, ema=ema, progressive=_pair("--progressive", progressive), prune=prune,
        density=density, cached_views=cached_views, seed=seed)
    hardware = Hardware(
        device=device, precision=precision, compile=compile_, deterministic=deterministic, hold=hold, workers=workers,
        max_corrupt=max_corrupt, checkpoint_seconds=checkpoint_seconds, local_batch_norm=local_batch_norm)
    order = {"recipes": recipes, "data": data, "out": out, "condition": condition, "hardware": hardware,
             "resume": resume, "start": start, "save_only": save_only}
    if slurm:
        from wiring_plugins import load_registry

        from .loop import untrained
        from .slurm import submit
        registry = load_registry()
        for name in recipes:
            untrained(name, registry)  # a misspelt one is found now, and not when the job starts
        job = submit(slurm, out, train_and_show, order)
        typer.echo(f"Submitted job {job}. Its output comes into {out}/slurm; the run, into {out}.")
    else:
        train_and_show(**order)


def train_and_show(recipes, *, condition: Condition, hardware: Hardware, **order) -> None:
    """Train, and print progress and ledger, in the leading process."""
    import os

    from wiring_plugins import load_host, load_registry

    from .distributed import find_device
    from .flops import peak_flops
    from .loop import train as run, untrained
    from .screen import Screen, summary

    host = load_host()
    registry = load_registry(host)
    chosen = [untrained(name, registry) for name in recipes]
    peak = peak_flops(find_device(hardware))
    screen = Screen(chosen, registry, condition, peak and peak * int(os.environ.get("WORLD_SIZE", 1)))
    results = run(chosen, condition=condition, hardware=hardware, host=host, registry=registry, report=screen, **order)
    if int(os.environ.get("RANK", 0)) == 0:
        typer.echo(summary(results))
    if not all(result.reason for result in results):
        raise typer.Exit(130)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    step: Annotated[Optional[int], typer.Option(help="Which checkpoint.", show_default="the newest")] = None,
    manifest: Annotated[Optional[Path], typer.Option(
        help="Also list the file in that manifest.json beside it, as the weights of its recipe.")] = None,
) -> None:
    """Write what a run has learned as delta weights, without the optimiser's state."""
    from wiring_plugins import read_metadata

    from .checkpoint import export as write
    from .checkpoint import list_in
    write(run, out, step=step)
    if manifest:
        list_in(manifest, out)
    facts = read_metadata(out)
    place = out if out.parent.name or out.is_absolute() or out.suffix == ".safetensors" else f"./{out}"
    typer.echo(f"{out}: {facts['recipe']['name']}, {out.stat().st_size / 1e6:.2f} MB, "
               f"{facts['recipe']['classes']} classes, {facts['facts']['ledger']['images']:,} images seen. "
               f"Score it with: brainscore score --model {facts['recipe']['name'].partition('@')[0]}@{place}")


def add_data_commands(app: typer.Typer) -> None:
    data = typer.Typer(no_args_is_help=True, help="Images to learn from.")
    app.add_typer(data, name="data")

    @data.command()
    def pack(
        source: Annotated[str, typer.Argument(help="An image tree, a folder of .tar shards, or a .tar file.")],
        folder: Annotated[Path, typer.Argument(help="The new folder to write.")],
        short_side: Annotated[str, typer.Option(help="Shrink larger images to that, or `original`.")] = "256",
        quality: Annotated[int, typer.Option(help="JPEG quality of images that were shrunk.", min=1, max=100)] = 90,
        max_corrupt: Annotated[int, typer.Option(help="Unreadable images that are named and left out.")] = 10,
    ) -> None:
        """Pack an image tree into one memory-mapped file per split, with a checksum."""
        from .data import open_data
        from .pack import pack as write
        sets = {split: open_data(source, split) for split in ("train", "val")}
        for name in write(sets, folder, short_side=_number("--short-side", short_side, "original"), quality=quality,
                          max_corrupt=max_corrupt):
            typer.echo(f"Left out: {name}", err=True)
        for split in filter(Path.is_dir, (folder / split for split in sets)):
            packed = open_data(str(split), "train")
            size = (split / "images.bin").stat().st_size
            typer.echo(f"{split}: {len(packed):,} images of {len(packed.classes)} classes, {size / 1e6:,.1f} MB")

    @data.command()
    def verify(folder: Annotated[Path, typer.Argument(help="A folder that `wiring data pack` wrote.")]) -> None:
        """Compare a pack with its checksum."""
        from .pack import verify as check
        for split in [part for part in (folder / "train", folder / "val") if part.is_dir()] or [folder]:
            typer.echo(f"{split}: {check(split):,} images, as packed")


def _number(flag: str, text: str, word: str) -> int | None:
    """`text` as a number, or None if it is `word`."""
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise WiringError(f"{flag} is a whole number or {word!r}; it was {text!r}.") from None


def _pair(flag: str, text: str | None) -> tuple[int, int] | None:
    """`A:B` as two numbers."""
    if text is None:
        return None
    try:
        first, second = map(int, text.split(":"))
    except ValueError:
        raise WiringError(f"{flag} is two whole numbers, such as 112:8; it was {text!r}.") from None
    return first, second
