"""From image files to network inputs, in the platform's own arithmetic but without its copies."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wiring_plugins import Commitment

if TYPE_CHECKING:
    import torch


def load_images(paths: Sequence[str | Path], size: int) -> torch.Tensor:
    """Image files, resized to `size` x `size` pixels: uint8 (n, 3, size, size), or (n, 1, size, size) if all are gray.

    Bilinear with anti-aliasing, as torchvision's `Resize` on a Pillow image. A gray image is resized in one channel:
    Pillow resizes channels independently, so the result is that of resizing three equal ones.
    """
    import torch
    from PIL import Image

    images = []
    for path in paths:
        with Image.open(path) as image:
            image = image if image.mode == "L" else image.convert("RGB")
            images.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images]
    else:
        images = [image[:, :, None] for image in images]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def normalise(images: torch.Tensor, commitment: Commitment) -> torch.Tensor:
    """uint8 images (n, 1 or 3, height, width) as the model's float32 inputs (n, 3, height, width)."""
    import torch

    mean, std = (torch.tensor(values, dtype=torch.float32, device=images.device)[:, None, None]
                 for values in (commitment.mean, commitment.std))
    return images.to(torch.float32).div(255).sub(mean).div(std).contiguous()
