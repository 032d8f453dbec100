"""From an image file's bytes to pixels, by the fastest decoder that is installed."""
from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 274
"""The EXIF tag that says how an image is to be turned before it is shown."""


def decoder_name() -> str:
    """`torchcodec` if it is installed, else `pillow`. They differ in rounding, so that a run records which it used."""
    return "torchcodec" if importlib.util.find_spec("torchcodec") else "pillow"


def decode(data: bytes, size: int, decoder: str) -> tuple[np.ndarray, float]:
    """The whole image squeezed into a square: uint8 (3, size, size), and its width divided by its height.

    Resized bilinearly with antialiasing, and not turned as EXIF tags ask for: torchvision's loader, which the reference
    work used, does not either. Both decoders let go of Python's lock, so that threads decode side by side.
    """
    return (_by_torchcodec if decoder == "torchcodec" else _by_pillow)(data, size)


def _by_pillow(data: bytes, size: int) -> tuple[np.ndarray, float]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        aspect = image.width / image.height
        image.draft("RGB", (size, size))  # decodes at 1/2, 1/4 or 1/8 where that is still at least `size`
        square = to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)), aspect


def to_rgb(image: Image.Image) -> Image.Image:
    """Three channels of 8 bits. Pillow alone would cut 16 bits off at 255 and give a white image."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image.convert("RGB")


def _turned(data: bytes) -> bool:
    """Whether its EXIF tags ask for the image to be turned or mirrored."""
    from PIL import Image

    if b"exif" not in data.lower():
        return False
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(ORIENTATION, 1) != 1


def _by_torchcodec(data: bytes, size: int) -> tuple[np.ndarray, float]:
    import torch.nn.functional as F
    from torchcodec.decoders import decode_image

    if _turned(data):  # torchcodec would turn it
        return _by_pillow(data, size)
    try:
        image = decode_image(data, mode="RGB")
    except Exception:  # CMYK and other rarities that only Pillow reads; what it cannot read either is corrupt
        return _by_pillow(data, size)
    image = image.reshape(-1, *image.shape[-3:])[:1]  # the first frame of an animation
    square = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
    return square[0].numpy(), image.shape[-1] / image.shape[-2]
