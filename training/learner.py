"""One recipe while it learns: its model, which of it learns, its optimiser, its schedule and its ledger."""
from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from wiring_plugins import (Delta, Recipe, Registry, WiringError, architecture_of, build_delta, count,
                            fingerprint, frozen_fingerprints, layer_rng, stored_names, wire)

from .average import MovingAverage
from .checkpoint import Checkpoint, Run
from .condition import Condition, Hardware
from .distributed import Group, share
from .layout import memory_layout
from .ledger import Ledger, count_trained
from .meter import Meter
from .prune import synflow
from .schedule import Plateau

if TYPE_CHECKING:
    import torch

    from .loader import Batch, Loader


class Diverged(WiringError):
    """The loss is no longer a number."""


def trained_names(recipe: Recipe, registry: Registry) -> set[str]:
    """Names of the parameters that learn: those of the layers at or below a path of `trainable`."""
    layers = architecture_of(recipe, registry).layers
    learning = [layer for layer in layers if recipe.learns(layer.path)]
    return {f"{layer.path}.{kind}" for layer in learning for kind in (("weight", "bias") if layer.bias else ("weight",))}


def freeze(model: torch.nn.Module, trained: set[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def set_training(model: torch.nn.Module, policy: str, trained: set[str]) -> None:
    """Training mode; under the policy `frozen`, normalisation layers that do not learn stay in evaluation mode."""
    from torch.nn.modules.batchnorm import _BatchNorm

    model.train()
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and policy == "frozen" and f"{path}.weight" not in trained:
            module.eval()


class Start(NamedTuple):
    """Weights to continue from: what to call them, and a whole state dict."""

    source: str
    state: Mapping[str, torch.Tensor]

    def fingerprint(self) -> str:
        return fingerprint({name: tensor.float() for name, tensor in self.state.items()})


class Learner:
    """Steps one recipe's model. `model` is the plain module; `network` is what runs: compiled, distributed or both."""

    def __init__(self, recipe: Recipe, registry: Registry, condition: Condition, hardware: Hardware, group: Group,
                 run: Run, *, facts: Mapping[str, Any], start: Start | None = None,
                 checkpoint: Checkpoint | None = None, compiled: bool = False):
        import torch

        self.recipe, self.condition, self.group, self.run, self.facts = recipe, condition, group, run, facts
        self.trained = trained_names(recipe, registry)
        if not self.trained:
            raise WiringError(f"Nothing of {recipe.name!r} learns: its `trainable` is empty. `wiring models` lists "
                              "recipes; -ct and -dt variants learn.")
        self.new = checkpoint is None
        if checkpoint:
            model = build_delta(checkpoint.delta, registry, name=f"the checkpoint of step {checkpoint.step}")
            self.stored, self.frozen = set(checkpoint.delta.tensors), checkpoint.delta.frozen
        else:
            model = wire(recipe, registry)
            self.stored = stored_names(model, self.trained) | (_take_over(model, start, recipe) if start else set())
            self.frozen = frozen_fingerprints(model, self.stored)
        borrowed = self._borrowed(model, registry, start)
        freeze(model, self.trained)
        self.model = model.to(group.device, memory_format=memory_layout(group.device))
        self.masks = self._prune() if self.new else {}  # name -> which of a weight's synapses there are
        self._keep_pruned()
        self.average = MovingAverage(self.model, self.stored, condition.ema) if condition.ema else None
        self.ledger = Ledger(trained=count_trained(self.model, self.trained, self.masks), borrowed=borrowed,
                             pruned=sum(int((~mask).sum()) for mask in self.masks.values()))
        self._set_training()
        self.ledger.adapted = sum(module.running_mean.numel() + module.running_var.numel() for module in model.modules()
                                  if getattr(module, "running_mean", None) is not None and module.training)
        self.validated = self.model  # neither compiled nor distributed: validation has its own shapes and modes
        self.network = share(self.model, group, local_batch_norm=hardware.local_batch_norm)
        if compiled:
            from torch._dynamo import config
            config.cache_size_limit = 256  # PyTorch counts the models of all recipes and every size of a batch together
            self.network = torch.compile(self.network, dynamic=False)
        self.plateau = Plateau(condition.lr, condition.patience, condition.min_lr)
        self.optimizer = self._optimizer()
        bf16 = hardware.precision == "bf16" or hardware.precision == "auto" and group.device.type == "cuda"
        self.autocast = lambda: torch.autocast(group.device.type, torch.bfloat16, enabled=bf16)
        self.step, self.epoch, self.reason = 0, 0, ""
        self.top1: float | None = None
        self.sums = torch.zeros(3, dtype=torch.float64, device=group.device)  # loss, correct, images of this epoch
        self.last_loss = torch.zeros((), device=group.device)
        self.counted: Mapping[str, Any] = checkpoint.delta.facts["ledger"] if checkpoint else {}  # when last saved
        if checkpoint:
            self._restore(checkpoint)
        self.meter = Meter(group)

    def learn(self, batch: Batch) -> None:
        """One optimiser step. Nothing here waits for the device."""
        import torch
        import torch.nn.functional as F

        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(self._seed())
        with self.autocast():
            logits = self.network(batch.images)
        logits = logits.float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=self.condition.label_smoothing)
        (loss * (self.group.world / batch.size)).backward()  # the processes' gradients are averaged, not added
        self.optimizer.step()
        with torch.no_grad():
            self._keep_pruned()
            if self.average:
                self.average.update()
            correct = (logits.argmax(1) == batch.labels).sum()
            self.sums += torch.stack([loss.double(), correct.double(), (batch.labels >= 0).sum().double()])
            self.last_loss = loss.detach() / batch.size
        self.step += 1

    def evaluate(self, loader: Loader) -> dict[str, float]:
        """Loss, top-1 and top-5 in evaluation mode, over all processes."""
        import torch
        import torch.nn.functional as F

        self.model.eval()
        sums = torch.zeros(4, dtype=torch.float64, device=self.group.device)
        with torch.no_grad(), self.autocast(), self.average.in_place() if self.average else nullcontext():
            for batch in loader.epoch(0):
                logits = self.validated(batch.images).float()
                hits = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
                loss = F.cross_entropy(logits, batch.labels, reduction="sum")
                sums += torch.stack([loss, hits[:, 0].sum(), hits.any(1).sum(), (batch.labels >= 0).sum()]).double()
        self._set_training()
        loss, first, fifth, count = self.group.sum(sums).tolist()
        return {"loss": loss / count, "top1": first / count, "top5": fifth / count}

    def train_only(self, layer: str) -> None:
        """From now on batches are inputs of that layer, and the rest of the model is at rest."""
        self.network, self.ledger.adapted = self.model.get_submodule(layer), 0
        self.validated = self.network

    def progress(self) -> dict[str, float]:
        """This process's mean loss and top-1 since the epoch began. Waits for the device.

        Raises:
            Diverged: the loss is not a number.
        """
        loss, correct, images = self.sums.tolist()
        if loss != loss or abs(loss) == float("inf"):
            raise Diverged(self._where_it_diverged())
        return {"loss": loss / max(images, 1), "top1": correct / max(images, 1)}

    def end_epoch(self, validation: dict[str, float] | None) -> dict[str, Any]:
        """Decide on the learning rate and whether to go on. Returns what to log."""
        self.progress()
        training, last = self.group.sum(self.sums.clone()).tolist(), float(self.group.sum(self.last_loss.clone()))
        self.ledger.images += round(training[2])
        self.sums.zero_()
        judged = validation["loss"] if self.condition.patience_policy == "validation" else last
        event = {"event": "epoch", "epoch": self.epoch + 1, "step": self.step, "lr": self.plateau.rate,
                 "loss": training[0] / max(training[2], 1), "top1": training[1] / max(training[2], 1),
                 "last_loss": last, "validation": validation, "images": self.ledger.images}
        self.plateau.step(judged)
        self._set_lr()
        self.epoch += 1
        self.top1 = validation["top1"] if validation else None
        if self.condition.epochs is None and self.plateau.converged:
            self.reason = "converged"
        elif self.epoch >= self.condition.max_epochs:
            self.reason = f"{self.epoch} epoch{'s' * (self.epoch != 1)}"
        return event

    def leave_group(self) -> None:
        """Let go of what reduces gradients between processes: its threads must end before the group is closed."""
        self.network = self.model

    @property
    def finished(self) -> bool:
        return bool(self.reason)

    def checkpoint(self, *, skipped: list[str]) -> Checkpoint:
        """This moment, whole. Waits for the device.

        Raises:
            Diverged: the loss is not a number; nothing of this moment should be kept.
        """
        import torch

        self.progress()
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if name in self.stored}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):  # the last step, whose loss was still good
            raise Diverged(self._where_it_diverged())
        sums, last_loss = self.group.sum(self.sums.clone()), self.group.sum(self.last_loss.clone())
        self._account(skipped)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        optimizer = {f"{names[id(parameter)]}/{slot}": torch.as_tensor(value) for parameter, slots in
                     self.optimizer.state.items() for slot, value in slots.items() if value is not None}
        optimizer |= {"loop/sums": sums, "loop/last_loss": last_loss}
        optimizer |= {f"{name}/mask": mask for name, mask in self.masks.items()}
        ledger = replace(self.ledger, images=self.ledger.images + int(sums[2])).to_plain()
        self.counted = ledger
        state = {"step": self.step, "epoch": self.epoch, "reason": self.reason, "top1": self.top1,
                 "plateau": asdict(self.plateau), "ledger": self.ledger.to_plain()}
        if self.average:  # what others load is the average; what training goes on from stands beside it
            optimizer |= {f"{name}/now": tensor for name, tensor in self.average.now.items()}
            tensors |= self.average.tensors
        delta = Delta(recipe=self.recipe, tensors=tensors, frozen=self.frozen,
                      facts={**self.facts, "ledger": ledger, "top1": self.top1})
        return Checkpoint(self.step, delta, state, optimizer)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Everything of a checkpoint but the model's weights."""
        state = checkpoint.state
        self.step, self.epoch, self.reason, self.top1 = state["step"], state["epoch"], state["reason"], state["top1"]
        self.plateau = Plateau(**state["plateau"])
        self.ledger = Ledger.from_plain(state["ledger"])
        tensors = {name: tensor.to(self.group.device) for name, tensor in checkpoint.optimizer.items()}
        own = float(self.group.leads)  # the sums over all processes go on in one of them
        self.sums, self.last_loss = tensors.pop("loop/sums") * own, tensors.pop("loop/last_loss") * own
        parameters = dict(self.model.named_parameters())
        now = {key.removesuffix("/now"): tensors.pop(key) for key in [*tensors] if key.endswith("/now")}
        if self.average:
            self.average.go_on(now)
        self.masks = {key.removesuffix("/mask"): tensors.pop(key) for key in [*tensors] if key.endswith("/mask")}
        for key, tensor in tensors.items():
            name, slot = key.rsplit("/", 1)
            moved = tensor if slot != "step" or self.optimizer.defaults.get("fused") else tensor.cpu()
            kept = moved.contiguous(memory_format=memory_layout(self.group.device)) if moved.dim() == 4 else moved
            self.optimizer.state[parameters[name]][slot] = kept
        self._set_lr()

    def _prune(self) -> dict[str, torch.Tensor]:
        """Masks of the weights of convolutions and linear layers that learn, if the condition prunes."""
        if self.condition.prune == "none":
            return {}
        names = [name for name, parameter in self.model.named_parameters() if name in self.trained and parameter.dim() > 1]
        masks = self.group.agree(synflow(self.model, names, self.condition.density, self.condition.image_size)
                                 if self.group.leads else None)
        return {name: mask.to(self.group.device) for name, mask in masks.items()}

    def _keep_pruned(self) -> None:
        for name, mask in self.masks.items():
            self.model.get_parameter(name).data.mul_(mask)

    def _seed(self) -> int:
        """For layers that draw numbers in training, such as dropout: a seed that follows from the step."""
        return int(layer_rng(self.condition.seed, f"layers {self.step} {self.group.rank}").randint(1 << 31))

    def _set_training(self) -> None:
        set_training(self.model, self.recipe.batch_norm.training, self.trained)

    def _optimizer(self) -> torch.optim.Optimizer:
        import torch

        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        settings = {"lr": self.condition.lr, "weight_decay": self.condition.weight_decay}
        fused = {"fused": True} if self.group.device.type == "cuda" else {}
        if self.condition.optimizer == "adam":
            return torch.optim.Adam(parameters, **settings, **fused)
        if self.condition.optimizer == "adagrad":
            return torch.optim.Adagrad(parameters, **settings)
        return torch.optim.SGD(parameters, momentum=self.condition.momentum, **settings, **fused)

    def _set_lr(self) -> None:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.plateau.rate

    def _borrowed(self, model: torch.nn.Module, registry: Registry, start: Start | None) -> dict[str, int]:
        sources = {step.source for init in self.recipe.init.values() for step in init.steps()}
        trained = [name for name in sorted((sources | {self.recipe.batch_norm.source}) - {None})
                   if registry.source(name).trained]
        borrowed = {f"statistics {', '.join(trained)}": count(self.recipe, registry).borrowed} if trained else {}
        if start:
            borrowed[f"weights {start.source}"] = sum(tensor.numel() for tensor in model.parameters())
        return borrowed

    def _account(self, skipped: list[str]) -> None:
        self.ledger.cost = self.meter.add(self.ledger.cost)
        self.ledger.skipped = sorted({*self.ledger.skipped, *skipped})
        self.ledger.steps = self.step

    def _where_it_diverged(self) -> str:
        """Name the first layer, in the order of the forward pass, that holds NaN or infinity."""
        saved = f"The last good checkpoint is kept in {self.run.folder}"
        bad = [name for name, tensor in self.model.state_dict().items() if not tensor.isfinite().all()]
        where = f"the first layer to hold NaN or infinity is {bad[0].rsplit('.', 1)[0]} ({bad[0]})" if bad else \
            "all weights are finite, so the images or the logits are to blame"
        return (f"{self.recipe.name} has diverged: its loss or its weights are no longer numbers after step {self.step}; "
                f"{where}. {saved}. Try a smaller --lr.")


def _take_over(model: torch.nn.Module, start: Start, recipe: Recipe) -> set[str]:
    """Load the weights of `start`, and name those that are not as this recipe wires them."""
    import torch

    state = model.state_dict()
    unfit = [name for name, tensor in state.items()
             if name not in start.state and not name.endswith("num_batches_tracked")
             or name in start.state and start.state[name].shape != tensor.shape]
    if unfit or start.state.keys() - state.keys():
        raise WiringError(f"--from {start.source} does not fit {recipe.name!r} with {recipe.classes} classes: "
                          f"{', '.join((unfit or sorted(start.state.keys() - state.keys()))[:3])}. "
                          "Continue from weights of the same architecture and classes.")
    moved = {name for name, tensor in start.state.items() if not torch.equal(state[name], tensor)}
    with torch.no_grad():
        for name, tensor in start.state.items():
            state[name].copy_(tensor)
    return moved
