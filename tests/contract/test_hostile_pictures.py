"""Pictures that are broken at random or on purpose: each has its code, and no memory stays behind."""

import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.packages import make_package
from tests.unit.serving.malformed import BAD, GOOD, file, photograph
from tests.workspace import ROOT

CODES = {
    400: {"empty_picture"},
    413: {"too_many_pixels", "too_many_bytes"},
    415: {"not_a_picture"},
    422: {"undecodable"},
}
KINDS = sorted(GOOD)
BEGINNINGS = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\x40\0\0\0WEBPVP8 ")
SERVE = """
import sys, threading
from pathlib import Path
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import listening

settings = ServingSettings(max_upload_bytes=2_000_000, max_pixels=4_000_000, predictions=Path(sys.argv[2]))
with listening(Runtime(ModelPackage(Path(sys.argv[1]))), settings) as url:
    print(url, flush=True)
    sys.stdin.readline()
"""


class Endpoint:
    """An endpoint in a process of its own, whose memory can be looked at."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        self.process = psutil.Process(process.pid)
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def ask(self, picture: bytes, path: str = "/predict") -> tuple[int, str]:
        """Return the status, and the code of a refusal, which must be one that the status has."""
        field = "images" if path == "/predict_batch" else "image"
        answer = self.client.post(path, files={field: ("a.jpg", picture)})
        if answer.status_code == 200:
            return 200, ""
        error = answer.json()["error"]
        assert error["code"] in CODES[answer.status_code], (answer.status_code, error)
        assert error["message"].endswith(".")
        return answer.status_code, error["code"]

    def memory(self) -> int:
        """Return the resident set, in bytes."""
        return int(self.process.memory_info().rss)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("endpoint")
    package = make_package(folder / "package", maps=True)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(package.path), str(folder / "predictions.sqlite")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Endpoint(process)
    finally:
        process.communicate("\n", timeout=30)


def bomb_png(side: int) -> bytes:
    """A PNG that truly holds so many pixels, all black: a thousandth of their size."""
    return file(Image.new("L", (side, side)), "PNG", optimize=True)


def text_bomb() -> bytes:
    """A PNG whose comment would take 200 MB."""
    good = file(photograph(), "PNG")
    content = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = len(content).to_bytes(4, "big") + b"zTXt" + content
    chunk += zlib.crc32(b"zTXt" + content).to_bytes(4, "big")
    return good[:33] + chunk + good[33:]


def animated_bomb() -> bytes:
    """A GIF of 400 frames, of which the first is the picture."""
    frames = [Image.new("P", (300, 300), index % 256) for index in range(400)]
    return file(frames[0], "GIF", save_all=True, append_images=frames[1:])


def lying_exif() -> bytes:
    """A JPEG whose EXIF claims another size, a turn that there is not, and a thumbnail beyond its end."""
    exif = Image.Exif()
    for tag, value in ((0x0100, 2**31 - 1), (0x0101, 2**31 - 1), (0x0112, 77), (0x0201, 2**31), (0x0202, 2**31 - 1)):
        exif[tag] = value
    return file(photograph(), "JPEG", exif=exif)


def tiff_of_many_strips() -> bytes:
    picture = bytearray(file(photograph(), "TIFF"))
    place = picture.find(b"\x11\x01\x04\x00")  # StripOffsets
    picture[place + 4 : place + 12] = b"\xff\xff\xff\x00" + b"\x08\x00\x00\x00"
    return bytes(picture)


def sixteen_bit_colour() -> bytes:
    values = np.random.default_rng(1).integers(0, 65536, (20, 20), dtype=np.uint16)
    return file(Image.fromarray(values), "TIFF")


HOSTILE: dict[str, tuple[Callable[[], bytes], int]] = {
    "bomb of 2,500 × 2,500": (lambda: bomb_png(2500), 413),
    "bomb within the limit": (lambda: bomb_png(1999), 200),
    "bomb of a comment": (text_bomb, 422),
    "animation of 400 frames": (animated_bomb, 200),
    "webp that claims 16,383 × 16,383": (
        lambda: b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f" + bytes(12),
        413,
    ),
    "bmp that claims 2^31 rows": (
        lambda: file(photograph(), "BMP")[:22] + b"\xff\xff\xff\x7f" + file(photograph(), "BMP")[26:],
        413,
    ),
    "gif that claims 65,535 × 65,535": (lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b"\x3b", 422),
    "exif with lies": (lying_exif, 200),
    "16-bit tiff": (sixteen_bit_colour, 200),
    "tiff of strips without number": (tiff_of_many_strips, 422),
    "jpeg that is a zip": (lambda: file(photograph(), "JPEG") + b"PK\x03\x04" + bytes(500), 200),
    "gif that is a script": (lambda: b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", 422),
    "pdf that holds a jpeg": (lambda: b"%PDF-1.7\n" + file(photograph(), "JPEG"), 415),
    "html that holds a png": (lambda: b"<html>" + file(photograph(), "PNG"), 415),
    "png with a jpeg's head": (lambda: b"\xff\xd8\xff\xe0" + file(photograph(), "PNG"), 422),
    "jpeg twice": (lambda: file(photograph(), "JPEG") * 2, 200),
    "jpeg with 60 kB of comments": (
        lambda: b"\xff\xd8" + b"\xff\xfe\xea\x60" + b"x" * 0xEA5E + file(photograph(), "JPEG")[2:],
        200,
    ),
    "no picture of 1.9 MB": (lambda: b"x" * 1_900_000, 415),
    "more bytes than are taken": (lambda: file(photograph(), "JPEG") + bytes(2_000_000), 413),
    "zeros": (lambda: bytes(1_000_000), 415),
}


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_picture_that_is_meant_to_hurt_is_answered_as_it_deserves(endpoint: Endpoint, kind: str, path: str) -> None:
    make, status = HOSTILE[kind]
    assert endpoint.ask(make(), path)[0] == status


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A picture of any kind: cut off, with bytes changed, bytes put in between, or a piece of another in it."""
    picture = bytearray(GOOD[draw(st.sampled_from(KINDS))]())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(picture) - 1, 0)) | st.integers(0, min(64, len(picture))))
        match draw(st.sampled_from(["cut", "change", "insert", "splice", "repeat"])):
            case "cut":
                del picture[place:]
            case "change":
                picture[place : place + 4] = draw(st.binary(min_size=1, max_size=4))
            case "insert":
                picture[place:place] = draw(st.binary(min_size=1, max_size=64))
            case "splice":
                picture[place : place + 200] = GOOD[draw(st.sampled_from(KINDS))]()[place : place + 200]
            case _:
                picture[place:place] = picture[place : place + 500]
    return bytes(picture)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(picture=broken(), path=st.sampled_from(["/predict", "/explain"]))
def test_a_picture_that_is_broken_at_random_is_answered_or_refused_with_a_code(
    endpoint: Endpoint, picture: bytes, path: str
) -> None:
    status, code = endpoint.ask(picture, path)
    assert status == 200 or code


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(begin=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=400))
def test_bytes_that_only_begin_like_a_picture_are_refused(endpoint: Endpoint, begin: bytes, rest: bytes) -> None:
    status, code = endpoint.ask(begin + rest)
    assert status in {400, 413, 415, 422}
    assert code


def hostile_round(endpoint: Endpoint, pictures: list[bytes], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for picture in pictures:
        endpoint.ask(picture)
    for kind in KINDS:
        changed = bytearray(GOOD[kind]())
        for place in rng.integers(0, len(changed), 8):
            changed[place] = int(rng.integers(256))
        endpoint.ask(bytes(changed))
        endpoint.ask(bytes(changed[: int(rng.integers(len(changed)))]), "/explain")


def test_memory_does_not_grow(endpoint: Endpoint) -> None:
    """What the allocator keeps settles after some rounds, and then swings by less than 1 MB.

    A round sends 5 MB of pictures and decodes 30 MB of pixels: over 8 rounds, one byte kept of a hundred would show.
    """
    pictures = [make() for make, *_ in (*HOSTILE.values(), *BAD.values())]
    for seed in range(4):
        hostile_round(endpoint, pictures, seed)
    before = endpoint.memory()
    for seed in range(4, 12):
        hostile_round(endpoint, pictures, seed)
    assert endpoint.memory() - before < 3_000_000
    assert endpoint.client.get("/readyz").json() == {"status": "ready", "degraded": []}
