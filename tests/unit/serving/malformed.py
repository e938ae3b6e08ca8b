"""Pictures as the world sends them: good ones of every kind, and broken ones with the code that each deserves."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.pictures import png_that_claims


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def photograph(side: int = 64) -> Image.Image:
    rng = np.random.default_rng(7)
    return Image.fromarray(rng.integers(0, 256, (side, side + 8, 3), dtype=np.uint8))


def _animated() -> bytes:
    frames = [photograph().rotate(angle) for angle in (0, 90, 180)]
    return file(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)


def _sixteen_bits() -> bytes:
    return file(Image.fromarray(np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)), "PNG")


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(photograph(), "JPEG", exif=exif)


def _broken_exif() -> bytes:
    return file(photograph(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 64)


GOOD: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: file(photograph(), "JPEG"),
    "progressive jpeg": lambda: file(photograph(), "JPEG", progressive=True),
    "cmyk jpeg": lambda: file(photograph().convert("CMYK"), "JPEG"),
    "grey jpeg": lambda: file(photograph().convert("L"), "JPEG"),
    "rotated jpeg": _rotated,
    "jpeg with broken exif": _broken_exif,
    "png": lambda: file(photograph(), "PNG"),
    "16-bit png": _sixteen_bits,
    "transparent png": lambda: file(photograph().convert("RGBA"), "PNG"),
    "palette png": lambda: file(photograph().convert("P"), "PNG"),
    "one-bit png": lambda: file(photograph().convert("1"), "PNG"),
    "animated gif": _animated,
    "webp": lambda: file(photograph(), "WEBP"),
    "bmp": lambda: file(photograph(), "BMP"),
    "tiff": lambda: file(photograph(), "TIFF"),
    "one pixel": lambda: file(photograph().crop((0, 0, 1, 1)), "PNG"),
    "one row": lambda: file(photograph().crop((0, 0, 64, 1)), "PNG"),
}

BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "empty": (lambda: b"", 400, "empty_picture"),
    "text": (lambda: b"This is not a picture. " * 50, 415, "not_a_picture"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", 415, "not_a_picture"),
    "pdf": (lambda: b"%PDF-1.7\n" + b"x" * 200, 415, "not_a_picture"),
    "zip": (lambda: b"PK\x03\x04" + b"\0" * 200, 415, "not_a_picture"),
    "pickle": (lambda: b"\x80\x04\x95\x00cos\nsystem\n", 415, "not_a_picture"),
    "zeros": (lambda: b"\0" * 5000, 415, "not_a_picture"),
    "icon": (lambda: file(photograph(), "ICO"), 415, "not_a_picture"),
    "truncated jpeg": (lambda: file(photograph(), "JPEG")[:-900], 422, "undecodable"),
    "truncated png": (lambda: file(photograph(), "PNG")[:-900], 422, "undecodable"),
    "truncated gif": (lambda: _animated()[:900], 422, "undecodable"),
    "truncated webp": (lambda: file(photograph(), "WEBP")[:-900], 422, "undecodable"),
    "jpeg of three bytes": (lambda: b"\xff\xd8\xff", 422, "undecodable"),
    "png of a signature": (lambda: b"\x89PNG\r\n\x1a\n", 422, "undecodable"),
    "webp of a signature": (lambda: b"RIFF\x10\0\0\0WEBPVP8 ", 422, "undecodable"),
    "bomb of 60,000 × 60,000": (lambda: png_that_claims(60_000, 60_000), 413, "too_many_pixels"),
    "bomb of 2^31 × 1": (lambda: png_that_claims(2**31 - 1, 1), 413, "too_many_pixels"),
    "picture without pixels": (lambda: png_that_claims(0, 5), 422, "undecodable"),
}
