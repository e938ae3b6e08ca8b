"""Tells Schemathesis what a picture is: it reads no more than `binary`."""

import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def picture(colour: tuple[int, int, int], width: int, height: int, kind: str) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(sink, kind)
    return sink.getvalue()


byte, side = st.integers(0, 255), st.integers(1, 40)
kinds = st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
schemathesis.openapi.format("binary", st.builds(picture, st.tuples(byte, byte, byte), side, side, kinds))
