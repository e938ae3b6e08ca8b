"""Labelled pictures as one Arrow table of encoded bytes: read by column, memory-mapped, never re-encoded."""

import hashlib
import json
import mmap
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("attributes", pa.string()),
    ]
)
"""One row a picture. `id` is its path relative to the source's root; `image` its file's bytes, readable or not.

`attributes` is what a manifest says besides: a JSON object of texts and numbers, or null. No fingerprint depends on it.
"""

Attributes = dict[str, str | float]

Row = tuple[str, bytes, str, str, str | None]
"""A picture's id, the bytes of its file, its label, its split and its attributes as JSON."""

_BATCH = 256  # rows of a record batch: what is in memory at once while pictures are written


@dataclass(frozen=True)
class ImageDataset:
    """Labelled pictures with their splits, and a sentence on how the source was read.

    `facts` holds everything but the pictures, in memory, and for each row its `place` in `images`, which may be mapped
    from a file: a subset shares them.
    """

    facts: pa.Table
    images: pa.ChunkedArray
    origin: str
    file: Path | None = None  # that holds just these rows
    pages: mmap.mmap | None = field(default=None, repr=False)

    @classmethod
    def from_rows(
        cls,
        ids: Sequence[str],
        images: Sequence[bytes],
        labels: Sequence[str],
        splits: Sequence[str],
        attributes: Sequence[str | None] | None = None,
        *,
        origin: str,
    ) -> "ImageDataset":
        """Build a dataset in memory, ordered by split and id."""
        order = sorted(range(len(ids)), key=lambda row: (splits[row], ids[row]))
        told = attributes or [None] * len(ids)
        rows = [(ids[row], images[row], labels[row], splits[row], told[row]) for row in order]
        return cls._of(pa.Table.from_batches(_batches(rows), schema=SCHEMA), origin)

    @classmethod
    def stored(cls, path: Path, rows: Iterable[Row], *, origin: str) -> "ImageDataset":
        """Write rows to a file as they come, in batches, and map it. They must be ordered by split and id."""
        _write(path, _batches(rows), origin)
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> "ImageDataset":
        """Memory-map a file that `stored` or `write` wrote."""
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.py_buffer(pages)).read_all()
        origin = (table.schema.metadata or {}).get(b"origin", b"").decode()
        return replace(cls._of(table, origin), file=path, pages=pages)

    @classmethod
    def _of(cls, table: pa.Table, origin: str) -> "ImageDataset":
        if "attributes" not in table.column_names:  # an earlier version's
            table = table.append_column(SCHEMA.field("attributes"), pa.nulls(len(table), pa.string()))
        facts = table.drop_columns(["image"]).replace_schema_metadata(None)
        places = pa.array(range(len(table)), type=pa.int64())
        return cls(facts.append_column("place", places).combine_chunks(), table.column("image"), origin)

    def write(self, path: Path) -> None:
        """Write an Arrow IPC file, uncompressed, that `read` can memory-map. One that is there already is linked to."""
        if self.file is not None:
            try:
                os.link(self.file, path)
                return
            except OSError:  # another disk, no links there, or the file is gone
                pass
        _write(path, self.batches(), self.origin)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Give the rows in record batches of `SCHEMA`, few enough pictures at a time to be in memory."""
        facts = zip(self.ids, self.labels, self.splits, self._column("attributes"), strict=True)
        rows = ((name, self.image(index), *others) for index, (name, *others) in enumerate(facts))
        for batch in _batches(rows):
            yield batch
            self.release()

    def release(self) -> None:
        """Let go of the pictures that were read: they are read from the file again when they are asked for."""
        if self.pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)

    def __len__(self) -> int:
        return int(self.facts.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        return self._column("id")

    @cached_property
    def labels(self) -> list[str]:
        return self._column("label")

    @cached_property
    def splits(self) -> list[str]:
        return self._column("split")

    @cached_property
    def digests(self) -> list[str]:
        """The sha256 of each picture's bytes, in hexadecimal."""
        return self._column("sha256")

    @cached_property
    def attributes(self) -> list[Attributes]:
        """What a manifest says of each picture besides its label and split: texts and numbers by name."""
        return [json.loads(text) if text else {} for text in self._column("attributes")]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted(set(self.labels)))

    def image(self, index: int) -> bytes:
        """Return the encoded bytes of one picture."""
        return bytes(self.images[self._places[index]].as_py())

    def split(self, name: Split) -> "ImageDataset":
        """Return the pictures of one split."""
        return self._kept(pc.equal(self.facts.column("split"), name))

    def without(self, ids: Collection[str]) -> "ImageDataset":
        """Return the pictures whose ids are not among the given."""
        if not ids:
            return self
        gone = pc.is_in(self.facts.column("id"), value_set=pa.array(sorted(ids), type=pa.string()))
        return self._kept(pc.invert(gone))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what is in it (bytes, labels, splits), not of paths or order: 16 hexadecimal digits."""
        rows = sorted(zip(self.digests, self.labels, self.splits, strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pictures by class, then by split."""
        counts = {label: dict.fromkeys(SPLITS, 0) for label in self.classes}
        for label, split in zip(self.labels, self.splits, strict=True):
            counts[label][split] += 1
        return counts

    def _kept(self, mask: pa.ChunkedArray) -> "ImageDataset":
        return replace(self, facts=self.facts.filter(mask).combine_chunks(), file=None)

    @cached_property
    def _places(self) -> list[int]:
        return self._column("place")

    def _column(self, name: str) -> list[Any]:
        values = self.facts.column(name).to_pylist()
        seen: dict[Any, Any] = {}
        return [seen.setdefault(value, value) for value in values] if name in {"label", "split"} else values


def _batches(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    waiting = iter(rows)
    while batch := list(islice(waiting, _BATCH)):
        ids, images, labels, splits, attributes = zip(*batch, strict=True)
        digests = [hashlib.sha256(image).hexdigest() for image in images]
        columns = zip((ids, images, labels, splits, digests, attributes), SCHEMA, strict=True)
        yield pa.record_batch([pa.array(column, type=field.type) for column, field in columns], schema=SCHEMA)


def _write(path: Path, batches: Iterable[pa.RecordBatch], origin: str) -> None:
    schema = SCHEMA.with_metadata({"origin": origin})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
