"""Batch-normalisation statistics without labels: what every channel sees when the model looks at 1/f noise."""
from __future__ import annotations

import numpy as np

from .recipe import Commitment
from .seeding import layer_rng

CHANNEL_CORRELATION = 0.9
"""Correlation of the noise between colour channels, about that of natural images (Ruderman et al. 1998)."""


def noise_images(count: int, size: int, seed: int) -> np.ndarray:
    """Images of 1/f noise: float32 (count, 3, size, size), every channel of mean 0 and variance 1.

    Amplitude falls as 1 / spatial frequency, as it does in natural scenes (Field, 1987, J Opt Soc Am A 4:2379); phases
    are random. Colour channels share most of their noise (:data:`CHANNEL_CORRELATION`).
    """
    rng = layer_rng(seed, "1/f noise")
    white = rng.standard_normal((count, 4, size, size))
    shared, own = np.sqrt(CHANNEL_CORRELATION), np.sqrt(1 - CHANNEL_CORRELATION)
    white = shared * white[:, :1] + own * white[:, 1:]
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    images = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
    images -= images.mean(axis=(2, 3), keepdims=True)
    images /= images.std(axis=(2, 3), keepdims=True)
    return images.astype(np.float32)


def calibrate(model, commitment: Commitment, *, images: int, seed: int) -> None:
    """Set the running mean and variance of every batch normalisation in `model` to those of one batch of 1/f noise.

    One forward pass in which each normalisation uses the batch's own statistics, so that every layer is measured behind
    layers that are already normalised, at each time step of its own. No labels and no photographs are used. The noise
    stands for normalised images: mean 0 and variance 1 in each channel.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    batch = torch.from_numpy(noise_images(images, commitment.image_size, seed))
    with torch.no_grad():
        model(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        norm.num_batches_tracked.zero_()
    model.train(was_training)
