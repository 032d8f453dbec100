"""The plain way: CORnet-S behind the platform's own temporal wrapper and commitment, for comparison with ours."""
from __future__ import annotations

import functools
import ssl

from wiring_plugins import Commitment


def plain_brain_model(identifier: str, model, commitment: Commitment, *, batch_size: int = 64):
    """The platform's `CORnetCommitment` of a recurrent model: a full forward pass for every recording.

    Its `activations_model` is the platform's `TemporalPytorchWrapper`, whose layers are named `V4.output-t3`.
    """
    trusted = ssl._create_default_https_context
    from brainscore_vision.model_helpers.activations.pytorch import load_preprocess_images
    from brainscore_vision.models.cornet_s.helpers.helpers import CORnetCommitment, TemporalPytorchWrapper
    ssl._create_default_https_context = trusted  # importing that plugin turns TLS verification off for the process

    preprocessing = functools.partial(load_preprocess_images, image_size=commitment.image_size,
                                      normalize_mean=commitment.mean, normalize_std=commitment.std)
    wrapper = TemporalPytorchWrapper(identifier=identifier, model=model, preprocessing=preprocessing, separate_time=True,
                                     batch_size=batch_size)
    time_mapping = {region: dict(enumerate(bins)) for region, bins in commitment.time_bins.items()}
    layers = [f"{commitment.regions[region]}-t{step}" for region, steps in time_mapping.items() for step in steps]
    return CORnetCommitment(identifier=identifier, activations_model=wrapper, time_mapping=time_mapping,
                            layers=[*layers, f"{commitment.readout}-t0"], visual_degrees=commitment.visual_degrees)
