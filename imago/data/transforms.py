"""From the bytes of a picture to the tensor a model sees: one way, the same in training and at the endpoint.

No torch in here: the endpoint imports it.
"""

import contextlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000

_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, LookupError, TypeError, AttributeError,
    ZeroDivisionError, NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's decoders raise for bytes that are broken, or broken on purpose."""

_ON_THEIR_SIDE = {5, 6, 7, 8}  # EXIF's orientations by which a picture's sides change places
_MODES = {"YCbCr": "RGB", "Gray": "L"}
_BROKEN = ("Premature end", "premature end", "bad Huffman code")
"""What libjpeg says of pictures that it fills up with grey."""

RGB = npt.NDArray[np.uint8]
"""A picture: (height, width, 3) uint8."""


class UnreadablePicture(ValueError):  # noqa: N818 - it is said of the picture
    """Bytes that are not a picture which may be decoded; `code` says which of the reasons it is."""

    def __init__(self, code: Literal["not_a_picture", "too_many_pixels", "undecodable"], message: str) -> None:
        super().__init__(message)
        self.code = code


class Preprocessing(BaseModel):
    """How a decoded picture becomes a model's input; part of every model's spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scaled_decoding: bool = False  # large JPEGs are decoded smaller, as `decode` does by a side; not in earlier specs

    @property
    def side(self) -> int:
        """The side in pixels that a decoded picture must not fall below; 0 where all are decoded whole."""
        return self.image_size if self.scaled_decoding else 0


@dataclass(frozen=True)
class Decoded:
    """A decoded picture, of which of Pillow's formats and modes its file is, and its height and width there."""

    pixels: RGB
    format: str | None
    mode: str
    shape: tuple[int, int]


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, side: int = 0) -> RGB:
    """Decode a picture to RGB: the first frame, upright by its EXIF orientation, transparency over white.

    Of more than 8 bits, integers are taken to go from 0 to 65535 and other numbers from 0 to 1, from black to white.
    With a `side`, a JPEG comes at a half, a quarter or an eighth of its size, if its shorter side then still has so
    many pixels: its blocks are decoded at that size, at a third of the price.
    The number of pixels is checked against the header before anything is decoded. Raises UnreadablePicture.
    """
    return read_picture(data, max_pixels=max_pixels, side=side).pixels


def read_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, side: int = 0) -> Decoded:
    """Decode a picture as `decode` does, and say what its file is. Raises UnreadablePicture."""
    plain = _plain_jpeg(data, max_pixels, side)
    if plain is not None:
        return plain
    image = open_picture(data, max_pixels=max_pixels)
    form, mode, (width, height) = image.format, image.mode, image.size
    turn = _orientation(image)
    if form in {"JPEG", "MPO"} and mode in {"RGB", "L"} and turn == 1:
        pixels = _decoded_jpeg(data, image.size, side)
        if pixels is not None:
            return Decoded(pixels, form, mode, (height, width))
    try:
        if form == "PNG":
            Image.open(io.BytesIO(data)).verify()  # its checksums
        if (fold := _fold(image.size, side)) > 1:
            image.draft(None, (width // fold, height // fold))  # which JPEGs alone take
        pixels = np.asarray(_to_rgb(image))
        return Decoded(pixels, form, mode, (width, height) if turn in _ON_THEIR_SIDE else (height, width))
    except _DECODER_ERRORS as error:
        raise UnreadablePicture("undecodable", f"it cannot be decoded: {error}") from error


def _fold(size: tuple[int, int], side: int) -> int:
    """Return by how much a picture may be scaled down, its shorter side not below `side`: 1, 2, 4 or 8."""
    return next((fold for fold in (8, 4, 2) if 0 < side <= min(size) // fold), 1)


def _plain_jpeg(data: bytes, max_pixels: int, side: int) -> Decoded | None:
    """Decode a JPEG that nothing says how to turn, without Pillow, which takes long to read its header."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    before = _before_pixels(data)
    if b"Exif\0" in before or b"Orientation" in before:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in _MODES or not 0 < width * height <= max_pixels:
        return None
    pixels = _decoded_jpeg(data, (width, height), side)
    return None if pixels is None else Decoded(pixels, "JPEG", _MODES[colours], (height, width))


def _before_pixels(data: bytes) -> bytes:
    """Return the segments of a JPEG before its pixels, a few of its bytes; all of them where it is strange."""
    place = 2
    while data[place : place + 1] == b"\xff":
        marker, length = data[place + 1 : place + 2], int.from_bytes(data[place + 2 : place + 4])
        if marker == b"\xda":
            return data[:place]
        if marker <= b"\x01" or b"\xd0" <= marker <= b"\xd9" or marker == b"\xff" or length < 2:
            break
        place += 2 + length
    return data


def _decoded_jpeg(data: bytes, size: tuple[int, int], side: int) -> RGB | None:
    """Return the same pixels as Pillow does, in half the time; None where only Pillow can. Raises UnreadablePicture."""
    try:
        if simplejpeg.decode_jpeg_header(data)[1::-1] != size:
            return None
        width, height = (-(-length // _fold(size, side)) for length in size)
        pixels: RGB = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError as error:  # what is only strange, Pillow takes
        if any(broken in str(error) for broken in _BROKEN):
            raise UnreadablePicture("undecodable", f"it cannot be decoded to its end: {error}") from error
        return None
    return pixels


def open_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture's header only, within the limit of pixels. Raises UnreadablePicture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise UnreadablePicture("not_a_picture", f"it is not one of {', '.join(FORMATS)}") from error
        except Image.DecompressionBombError as error:
            raise UnreadablePicture("too_many_pixels", f"it has more than {max_pixels:,} pixels") from error
        except _DECODER_ERRORS as error:
            raise UnreadablePicture("undecodable", f"its header cannot be read: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadablePicture(
            "too_many_pixels", f"it has {width}×{height} pixels; at most {max_pixels:,} are decoded"
        )
    if not width or not height:
        raise UnreadablePicture("undecodable", "it has no pixels")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.seek(0)
    image.load()
    with contextlib.suppress(
        *_DECODER_ERRORS
    ):  # a picture whose EXIF is broken is still a picture, taken to be upright
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_levels(image)).convert("RGB")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        below = Image.new("RGB", above.size, "white")
        below.paste(above, mask=above.getchannel("A"))
        return below
    return image.convert("RGB")


def _levels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return grey levels (height, width) of integers from 0 to 65535, or of numbers from 0 to 1."""
    values = np.asarray(image)
    if image.mode == "F":
        return np.asarray((np.nan_to_num(values).clip(0, 1) * 255).round(), dtype=np.uint8)
    return np.asarray(values.clip(0, 65535).astype(np.uint16) // 257, dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) else 1


def resize_to_square(picture: RGB, size: int) -> RGB:
    """Scale the shorter side to `size` pixels (bicubic, antialiased) and cut out the centre: (size, size, 3) uint8."""
    height, width = picture.shape[:2]
    if (height, width) == (size, size):
        return picture
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box))


def normalise(picture: RGB, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Turn a square picture into a model's input: (3, size, size) float32."""
    mean = np.asarray(preprocessing.mean, dtype=np.float32) * np.float32(255)
    scale = np.float32(1) / (np.asarray(preprocessing.std, dtype=np.float32) * np.float32(255))
    values = np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32)  # planes are worked through fastest
    values -= mean[:, None, None]
    values *= scale[:, None, None]
    return values


def preprocess(picture: RGB, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Turn a decoded picture of any size into a model's input: (3, size, size) float32."""
    return normalise(resize_to_square(picture, preprocessing.image_size), preprocessing)
