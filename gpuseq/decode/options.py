"""How encoded files become images: a frozen value, checked once when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from gpuseq.base.types import ColorMode, DecoderChoice, Interpolation

__all__ = ["DecodeOptions"]


@dataclass(frozen=True)
class DecodeOptions:
    """How encoded files become images.

    Attributes
    ----------
    target_size : (int, int) or None
        Rows and columns after the resize; None keeps each file's own size.
    decoder : {"auto", "dali", "nvimgcodec", "pillow", "simplejpeg"}
        The decoder; formats that it cannot decode exactly go to Pillow.
    exif_orientation : bool
        Turn the image as its EXIF tag says. Keras does not.
    max_pixels : int or None
        Refuse larger images from their header. None takes Pillow's own limit.
    num_threads : int or None
        Decoding threads; None takes all the cores this process may use.
    hw_decoder_load : float
        Share of a batch, 0 to 1, for the JPEG hardware of GPUs that have it, where the GPU decodes. Its pixels differ
        slightly from those of the CUDA decoder.
    deterministic : bool
        Let the GPU's CUDA decoder do all of its share, so that a file's pixels do not depend on its place in the batch.
    keep_palette : bool
        Take a palette's indices for the pixels under ``color_mode="grayscale"``, and not the grey of its colours: they
        are the labels of a mask.
    """

    color_mode: ColorMode = "rgb"
    target_size: tuple[int, int] | None = None
    interpolation: Interpolation = "nearest"
    keep_aspect_ratio: bool = False
    decoder: DecoderChoice = "auto"
    exif_orientation: bool = False
    max_pixels: int | None = None
    num_threads: int | None = None
    hw_decoder_load: float = 0.65
    deterministic: bool = False
    keep_palette: bool = False

    def __post_init__(self) -> None:
        """Check what no caller has checked."""
        if not 0 <= self.hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load must be within 0 and 1; got {self.hw_decoder_load!r}")
