"""Training a single linear layer on features that are computed once."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from wiring_plugins import WiringError, layer_rng

from .condition import Condition
from .loader import Batch, Loader

if TYPE_CHECKING:
    import torch

    from .learner import Learner


class FeatureLoader:
    """Batches of features in place of images; every epoch uses the next of the cached views of each image."""

    def __init__(self, loader: Loader, learner: Learner, layer: str, views: int):
        self.loader, self.seed, self.batch_size = loader, loader.condition.seed, loader.condition.batch_size
        self.corrupt = loader.corrupt
        self.views = [_features(loader, learner, layer, view) for view in range(views)]

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        features, labels = self.views[epoch % len(self.views)]
        order = np.arange(len(features))
        if self.loader.train:
            layer_rng(self.seed, f"order {epoch}").shuffle(order)
        for step in range(start, len(self)):
            batch = order[step * self.batch_size:(step + 1) * self.batch_size]
            yield Batch(features[batch], labels[batch], len(batch))


def cache(learners: list[Learner], loaders: tuple[Loader, Loader | None], condition: Condition):
    """Loaders of features for the one learner, whose `network` becomes its linear layer.

    Raises:
        WiringError: there are several learners or processes, or more than one linear layer learns.
    """
    learner, *others = learners
    layers = {name.rpartition(".")[0] for name in learner.trained}
    kinds = {kind for kind, count in learner.ledger.trained.items() if count}
    if others or learner.group.world > 1 or len(layers) > 1 or kinds != {"linear"}:
        raise WiringError("--cached-views is for one recipe, in one process, of which one linear layer learns, such "
                          f"as wiring-dt-decoder; of {learner.recipe.name!r} {', '.join(sorted(layers))} learn.")
    layer, = layers
    training, validation = loaders
    loaders = (FeatureLoader(training, learner, layer, condition.cached_views),
               validation and FeatureLoader(validation, learner, layer, 1))
    learner.train_only(layer)
    return loaders


def _features(loader: Loader, learner: Learner, layer: str, view: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of `layer` (n, features) for view number `view` of every image, and labels (n,), in the images' order."""
    import torch

    caught = []
    hook = learner.model.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    learner.model.eval()
    labels = []
    with torch.no_grad(), learner.autocast():
        for batch in loader.epoch(view):
            learner.model(batch.images)
            labels.append(batch.labels)
    hook.remove()
    features, labels = torch.cat(caught).float(), torch.cat(labels)
    if not loader.train:
        return features, labels
    order = np.arange(len(loader.chosen))  # the loader gave them shuffled: put them back
    layer_rng(loader.condition.seed, f"order {view}").shuffle(order)
    place = torch.as_tensor(np.argsort(order[:len(features)], kind="stable"), device=features.device)
    return features[place], labels[place]
