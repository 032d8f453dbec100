"""A run's folder: what it is a run of, its checkpoints, its log, and a lock so that one process at a time writes to it.

    RUN/run.json                       recipe, condition, data, package version: what has to be equal to resume
    RUN/checkpoints/step-00000123.safetensors   delta weights with the optimiser's tensors and the loop's state
    RUN/log.jsonl                      one JSON object a line
    RUN/ledger.json                    the newest checkpoint's ledger, for people
"""
from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wiring_plugins import (CHECKPOINTS, DELTA_FORMAT, OPTIMIZER, CorruptFile, Delta, FrozenMapping, WiringError,
                            newest_in, read_delta, read_metadata, replacing, to_plain, write_delta)

from .condition import differences

if TYPE_CHECKING:
    import torch

NEWEST = 2
"""Checkpoints that are kept beside those of the condition's schedule."""

LICENCE = "The weights follow from the images they were trained on; the images' licence may restrict their use."


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment. state: the loop's JSON values. optimizer: `parameter/slot` -> tensor."""

    step: int
    delta: Delta
    state: Mapping[str, Any]
    optimizer: Mapping[str, torch.Tensor]


class Run:
    """A run folder that this process has locked. Use as a context manager."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.checkpoints = self.folder / CHECKPOINTS

    def __enter__(self) -> Run:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.folder / "lock", "w")
        except OSError as error:
            raise WiringError(f"The run folder {self.folder} cannot be written ({error.strerror}). Give another "
                              "with -o.") from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process dies
        except OSError as error:
            self.lock.close()
            raise WiringError(f"Another process is training in {self.folder}. Wait for it, or give another folder "
                              "with -o.") from error
        for folder, name in ((self.folder, ".*.part"), (self.checkpoints, ".*.part"), (self.checkpoints, ".tmp*")):
            for leftover in folder.glob(name):  # of a process that was killed; .tmp* are those of safetensors
                leftover.unlink()
        return self

    def __exit__(self, *_) -> None:
        self.lock.close()

    def begin(self, facts: Mapping[str, Any], *, resume: bool) -> Checkpoint | None:
        """Note what this is a run of, or check that it is the same as what the folder holds already.

        Returns the checkpoint to go on from; None for a new run.

        Raises:
            WiringError: the folder holds a run and `resume` is False, or a run of something else.
        """
        file = self.folder / "run.json"
        facts = json.loads(json.dumps({"format": DELTA_FORMAT, **to_plain(facts)}))
        if not file.exists():
            with replacing(file) as part:
                part.write_text(json.dumps(facts, indent=1))
            return None
        known = read_json(file)
        if known.get("format") != DELTA_FORMAT:
            raise WiringError(f"{self.folder} was written by another version (format {known.get('format')!r}; this one "
                              f"writes {DELTA_FORMAT!r}). Train in another folder with -o.")
        if lines := differences(_identity(known), _identity(facts)):
            raise WiringError(f"{self.folder} holds a run of something else: {'; '.join(lines)}. "
                              "Give the same recipe, condition and data, or another folder with -o.")
        steps = self.steps()
        if steps and not resume:
            raise WiringError(f"{self.folder} holds a run that reached step {steps[-1]}. Add --resume to go on with "
                              "it, or give another folder with -o.")
        return self.newest()

    def steps(self) -> list[int]:
        return sorted(int(file.stem.removeprefix("step-")) for file in self.checkpoints.glob("step-*.safetensors"))

    def path(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read.

        Raises:
            CorruptFile: there are checkpoints, and none of them can.
        """
        problem = None
        for step in reversed(self.steps()):
            try:
                return read_checkpoint(self.path(step))
            except CorruptFile as error:
                problem = problem or error
        if problem:
            raise problem
        return None

    def save(self, checkpoint: Checkpoint, *, kept: set[int]) -> None:
        """Write a checkpoint, then remove those that are neither among the newest nor in `kept`."""
        extra = {f"{OPTIMIZER}{name}": tensor for name, tensor in checkpoint.optimizer.items()}
        write_delta(self.path(checkpoint.step), checkpoint.delta, extra=extra, metadata={"state": checkpoint.state})
        write_json(self.folder / "ledger.json", checkpoint.delta.facts["ledger"])
        for step in self.steps()[:-NEWEST]:
            if step not in kept:
                self.path(step).unlink()

    def log(self, event: Mapping[str, Any]) -> None:
        file = self.folder / "log.jsonl"
        try:
            with open(file, "a") as log:
                log.write(json.dumps(event) + "\n")
        except OSError as error:
            raise WiringError(f"{file} cannot be written: {error.strerror}. What was saved is untouched; make room on the "
                              "disk and go on with --resume.") from error

    def cut_log(self, step: int) -> None:
        """Forget what was logged after `step`: it is about to happen again."""
        file = self.folder / "log.jsonl"
        if file.exists():
            lines = [line for line in file.read_text().splitlines(keepends=True) if _step(line) <= step]
            with replacing(file) as part:
                part.write_text("".join(lines))


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's facts tells it from another: not its sentences, nor where data and start lay."""
    nameless = {part: {**facts[part], "name": None} for part in ("data", "start") if facts.get(part)}
    return {**facts, **nameless, "recipe": {**facts["recipe"], "doc": "", "reference": ""}}


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # the process was killed while it wrote this line


def read_checkpoint(path: Path) -> Checkpoint:
    from safetensors import safe_open

    state = read_metadata(path).get("state")
    if state is None:
        raise CorruptFile(f"{path} holds weights and no state of a training; it cannot be resumed from.")
    with safe_open(path, "pt") as file:
        optimizer = {name.removeprefix(OPTIMIZER): file.get_tensor(name) for name in file.keys()
                     if name.startswith(OPTIMIZER)}
    return Checkpoint(state["step"], read_delta(path), state, optimizer)


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} cannot be read ({error}).") from error


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(to_plain(value), indent=1))


def export(run: str | Path, out: str | Path, *, step: int | None = None) -> Path:
    """Write a run's newest checkpoint, or that of `step`, as delta weights, without the optimiser. Returns `out`."""
    folder = Run(run)
    newest_in(folder.folder)  # says what is the matter if there is none
    steps = folder.steps()
    if step is not None and step not in steps:
        raise WiringError(f"{run} holds no checkpoint of step {step}. Legal: {', '.join(map(str, steps))}.")
    checkpoint = folder.newest() if step is None else read_checkpoint(folder.path(step))
    facts = FrozenMapping({**checkpoint.delta.facts, "licence": LICENCE})
    write_delta(out, replace(checkpoint.delta, facts=facts))
    return Path(out)


def list_in(manifest: str | Path, file: str | Path) -> None:
    """Make `file`, delta weights beside the manifest, those of its recipe: the recipe is built trained from then on.

    Raises:
        WiringError: the file lies elsewhere, or its recipe is wired from another source than the registered one.
    """
    manifest, file = Path(manifest), Path(file)
    if file.resolve().parent != manifest.resolve().parent:
        raise WiringError(f"{file} is not beside {manifest}, which lists files of its own folder. Export to "
                          f"{manifest.parent / file.name}.")
    content = read_metadata(file)
    recipe, facts = content["recipe"]["name"], content["facts"]
    if "@" in recipe:
        raise WiringError(f"{file} was trained from {recipe!r}, and a manifest lists registered recipes only. Score it "
                          f"as {recipe.partition('@')[0]}@{file}.")
    entries = read_json(manifest) if manifest.exists() else []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "recipe" in entry for entry in entries):
        raise CorruptFile(f"{manifest} is no list of weights by recipe. Give another, or a name that is free.")
    others = [entry for entry in entries if entry["recipe"] != recipe]
    entry = {"recipe": recipe, "file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
             "classes": len(facts["classes"]), "data": facts["data"], "top1": facts["top1"], "ledger": facts["ledger"],
             "licence": facts["licence"]}
    write_json(manifest, sorted([*others, entry], key=lambda entry: entry["recipe"]))
