"""The training loop, top to bottom: data, models, steps, checkpoints.

Everything random is drawn from (seed, epoch, step), so that the loop's whole position is one number, its step, and a
run that is killed and resumed passes through the same states as one that is not. Several recipes can learn from one
stream of images; one that is ahead, because it was saved later, waits until the others have caught up.
"""
from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wiring_plugins import (BIRTH, NotEnoughMemory, Recipe, Registry, WeightsRef, WiringError, build_delta, is_delta,
                            load_host, load_registry, memory_refusal, newest_in, read_delta, read_state, resolve, tell)

from .checkpoint import Run
from .condition import Condition, Hardware
from .data import choose, open_data
from .distributed import Group, join
from .learner import Learner, Start
from .loader import Loader

REPORT_SECONDS = 2.0
AGREE_STEPS = 16
"""With several processes: how often, in steps, the leading one is asked whether it is time to save or to stop."""

COMPILE_STEPS = 2000
"""A training of fewer steps is over before compiling has paid for itself."""

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Result:
    """What became of one recipe. reason: why the training ended; empty if it was interrupted."""

    run: Path
    recipe: Recipe
    reason: str
    ledger: Mapping[str, Any]
    top1: float | None


def train(recipes: Sequence[str | Recipe], *, data: str, out: str | Path, condition: Condition = Condition(),
          hardware: Hardware = Hardware(), resume: bool = False, start: str | Path | None = None,
          save_only: bool = False, host=None, registry=None, report: Report = lambda event: None) -> list[Result]:
    """Train recipes side by side on the same images, each in a run folder: `out`, or `out/NAME` if there are several.

    start: a run folder or weights file to continue from. save_only: keep the weights of birth, and train nothing.
    report: called with every event, beside the `wiring_event` hook.

    Raises:
        WiringError: the data, the condition and the recipes do not fit together, or `out` holds another run.
        Diverged: a loss is no longer a number. What was saved before is kept.
    """
    host = host or load_host()
    registry = registry or load_registry(host)
    group = join(hardware)
    try:
        with ExitStack() as stack:
            stack.enter_context(enough_memory(condition, "What was saved is kept. Go on with --resume --hold no or on more "
                                                         "GPUs, or begin again with a smaller --batch-size."))
            recipes = [untrained(recipe, registry) if isinstance(recipe, str) else recipe for recipe in recipes]
            training, validation = (open_data(data, split, host) for split in ("train", "val"))
            loaders = _loaders(recipes, training, validation, condition, hardware, group, registry)
            for loader in filter(None, loaders):
                stack.callback(loader.close)
            learners = _learners(recipes, loaders, condition, hardware, group, registry, Path(out), stack,
                                 resume=resume, start=start)
            if not save_only and not all(learner.finished for learner in learners):
                for loader in filter(None, loaders):
                    loader.hold()
            if condition.cached_views:
                from .features import cache
                loaders = cache(learners, loaders, condition)
            stopped = stack.enter_context(_stop_on_signal())
            _run(learners, *loaders, condition, hardware, group, stopped, _announcer(host, group, report),
                 save_only=save_only)
            results = [Result(learner.run.folder, learner.recipe, learner.reason or ("birth only" if save_only else ""),
                           learner.counted, learner.top1) for learner in learners]
            group.gather(None)  # no process leaves while another still listens to it
            for learner in learners:
                learner.leave_group()
            return results
    finally:
        group.close()


def _run(learners: list[Learner], loader: Loader, validation: Loader | None, condition: Condition, hardware: Hardware,
         group: Group, stopped: Callable[[], bool], announce, *, save_only: bool) -> None:
    steps = len(loader)
    kept = condition.kept_steps(steps)
    saved, reported = time.monotonic(), 0.0

    def save(learner: Learner) -> None:
        own = [name for images in filter(None, (loader, validation)) for name in images.corrupt]
        skipped = sorted({name for names in group.gather(own) for name in names})
        checkpoint = learner.checkpoint(skipped=skipped)
        if group.leads:
            learner.run.save(checkpoint, kept=kept)

    def due(step: int) -> bool:
        if group.world > 1 and step % AGREE_STEPS:
            return False
        return group.agree(time.monotonic() - saved >= hardware.checkpoint_seconds or stopped())

    for learner in learners:
        if learner.new:
            if condition.max_epochs == 0:
                learner.reason = "0 epochs"
            save(learner)  # the birth, which is never written again
        announce(learner, {"event": "start", "step": learner.step, "steps_per_epoch": steps, "epoch": learner.epoch,
                           "reason": learner.reason})
    if save_only:
        return
    while active := [learner for learner in learners if not learner.finished]:
        position = min(learner.step for learner in active)
        epoch = min(learner.epoch for learner in active)
        for number, batch in enumerate(loader.epoch(epoch, position - epoch * steps), position):
            for learner in active:
                if learner.step == number and learner.epoch == epoch:
                    learner.learn(batch)
            step = number + 1
            if time.monotonic() - reported > REPORT_SECONDS:
                for learner in active:
                    announce(learner, {"event": "progress", "step": step, "epoch": step / steps,
                                       "lr": learner.plateau.rate, **learner.progress()}, log=False)
                reported = time.monotonic()
            if step % steps and (step in kept or due(step)):
                for learner in active:
                    if learner.step == step:
                        save(learner)
                saved = time.monotonic()
                if group.agree(stopped()):
                    return
        for learner in active:
            if learner.epoch == epoch:
                event = learner.end_epoch(learner.evaluate(validation) if validation else None)
                announce(learner, event)  # before it is saved: what is logged after the newest checkpoint happens again
                if learner.finished:
                    announce(learner, {"event": "end", "step": learner.step, "reason": learner.reason})
                save(learner)
        saved = time.monotonic()
        if group.agree(stopped()):
            return


def _loaders(recipes, training, validation, condition, hardware, group, registry) -> tuple[Loader, Loader | None]:
    """The images to learn from, and those to validate on, if there are any."""
    commitments = [registry.commitment(recipe) for recipe in recipes]
    norm = {(commitment.mean, commitment.std) for commitment in commitments}
    if len(norm) > 1:
        raise WiringError(f"{', '.join(recipe.name for recipe in recipes)} normalise images differently and cannot "
                          "share them. Train them one after the other.")
    (mean, std), = norm
    chosen = choose(training, condition.images, condition)
    if len(chosen) < 2:
        raise WiringError("One image cannot be learned from. Give --images 2 or more.")
    common = {"device": group.device, "mean": mean, "std": std, "rank": group.rank, "world": group.world}
    train_loader = Loader(training, chosen, condition, hardware, train=True, **common)
    wanted = condition.validation_images
    count = min(len(validation), len(chosen)) if wanted is None else wanted
    if not count:
        if condition.patience_policy == "validation":
            raise WiringError(f"--patience-policy validation needs validation images, and {training.spec} has none. "
                              "Put them into val/CLASS/ beside train/, or use --patience-policy paper.")
        return train_loader, None
    if wanted and not len(validation):
        raise WiringError(f"--validation-images {wanted}: {training.spec} has no validation images. "
                          "Put them into val/CLASS/ beside train/, or leave the option out.")
    if validation.classes != training.classes:
        alone = sorted({*validation.classes} ^ {*training.classes})
        raise WiringError(f"The validation images of {validation.spec} are of other classes than the training images "
                          f"({len(validation.classes)} and {len(training.classes)}; in one of them only: "
                          f"{', '.join(alone[:3])}). Give the same classes in both.")
    chosen = choose(validation, count, replace(condition, subset="uniform"), flag="--validation-images")
    return train_loader, Loader(validation, chosen, condition, hardware, train=False, **common)


def _learners(recipes, loaders, condition, hardware, group, registry, out, stack, *, resume, start) -> list[Learner]:
    """One learner per recipe, at its birth or where its run folder left it."""
    images, chosen = loaders[0].images, loaders[0].chosen
    validation = loaders[1] and loaders[1].images.fingerprint(loaders[1].chosen)
    origin = None if start is None else load_start(start, registry)
    facts = {"classes": list(images.classes), "condition": condition,
             "start": origin and {"name": origin.source, "fingerprint": origin.fingerprint()},
             "data": {"name": "/".join(Path(images.spec).parts[-2:]), "images": len(chosen),
                      "fingerprint": images.fingerprint(chosen), "validation": validation, "decoder": images.decoder}}
    compiled = _compiles(condition.max_epochs * len(loaders[0]), hardware, group)
    if len({recipe.name for recipe in recipes}) < len(recipes):
        raise WiringError("A recipe is named twice. Give each once; seeds have recipes of their own: NAME-seed42.")
    learners = []
    for recipe in recipes:
        recipe = replace(recipe, classes=len(images.classes), weights=WeightsRef())
        run = Run(out if len(recipes) == 1 else out / recipe.name)
        if group.leads:
            stack.enter_context(run)
            run.begin({**facts, "recipe": recipe,
                       "batch_norm": "local" if hardware.local_batch_norm and group.world > 1 else "whole batch"},
                      resume=resume)
        group.agree(None)  # wait until the leading process has looked at the folder
        newest = run.newest()
        if newest and group.leads:
            run.cut_log(newest.step)
        learners.append(Learner(recipe, registry, condition, hardware, group, run, facts=facts, start=origin,
                                checkpoint=newest, compiled=compiled))
    return learners


def _compiles(steps: int, hardware: Hardware, group: Group) -> bool:
    """Whether to compile a training of so many steps. PyTorch cannot compile normalisation over several processes: the
    graph would break at each of them."""
    pays = group.device.type == "cuda" and steps >= COMPILE_STEPS and (group.world == 1 or hardware.local_batch_norm)
    return hardware.compile == "yes" or hardware.compile == "auto" and pays


def untrained(name: str, registry: Registry) -> Recipe:
    """The recipe of that name, `NAME`, `NAME@birth` or `NAME@SOURCE`, as it is before any training.

    Raises:
        UnknownName: there is none. WiringError: the name is that of trained weights, `NAME@RUN`.
    """
    name = name.removesuffix(f"@{BIRTH}")
    recipe = resolve(name, registry)
    if "@" in name and recipe.weights.kind != "generated":
        base, _, place = name.partition("@")
        raise WiringError(f"{name!r} names weights that have learned already. To go on from them, give the recipe and "
                          f"`--from`: wiring train {base} --from {place}.")
    return recipe


def load_start(start: str | Path, registry: Registry) -> Start:
    """All weights of a run's newest checkpoint, of a delta file, or of a plain checkpoint."""
    path = Path(start)
    if path.is_dir():
        newest_in(path)  # says what is the matter if there is none
        newest = Run(path).newest()
        return Start(str(start), build_delta(newest.delta, registry, name=str(start)).state_dict())
    if is_delta(path):
        return Start(path.name, build_delta(read_delta(path), registry, name=str(start)).state_dict())
    return Start(path.name, read_state(path))


def _announcer(host, group: Group, report: Report):
    def announce(learner: Learner, event: Mapping[str, Any], *, log: bool = True) -> None:
        if not group.leads:
            return
        event = {**event, "recipe": learner.recipe.name, "time": time.time()}
        if log:
            learner.run.log(event)
        tell(host, "wiring_event", run=learner.run.folder, event=event)
        report(event)
    return announce


@contextmanager
def enough_memory(condition: Condition, advice: str):
    """Turn a refusal to give more memory, of a GPU or of the system, into a sentence that ends with `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = memory_refusal(error)
        if reason is None:
            raise
        raise NotEnoughMemory(
            f"Training on batches of {condition.batch_size} images of {condition.image_size} pixels does not fit into the "
            f"memory ({reason}). {advice}") from error


@contextmanager
def _stop_on_signal():
    """Until the block ends, SIGINT and SIGTERM mean: save after this step, and stop. A second one interrupts."""
    asked = []

    def ask(number, frame) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: somebody else handles signals
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
