"""Labelled pictures as one Arrow table of encoded bytes: read by column, memory-mapped, never re-encoded."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

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
    ]
)
"""One row a picture. `id` is its path relative to the source's root; `image` its file's bytes, readable or not."""


@dataclass(frozen=True)
class ImageDataset:
    """Labelled pictures with their splits, and a sentence on how the source was read."""

    table: pa.Table
    origin: str

    @classmethod
    def from_rows(
        cls, ids: Sequence[str], images: Sequence[bytes], labels: Sequence[str], splits: Sequence[str], *, origin: str
    ) -> "ImageDataset":
        """Build a dataset in memory, ordered by split and id."""
        digests = [hashlib.sha256(image).hexdigest() for image in images]
        table = pa.table(
            [
                pa.array(column, type=field.type)
                for column, field in zip((ids, images, labels, splits, digests), SCHEMA, strict=True)
            ],
            schema=SCHEMA,
        )
        return cls(table.sort_by([("split", "ascending"), ("id", "ascending")]), origin)

    def __len__(self) -> int:
        return int(self.table.num_rows)

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
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted(set(self.labels)))

    def image(self, index: int) -> bytes:
        """Return the encoded bytes of one picture."""
        return bytes(self.table.column("image")[index].as_py())

    def split(self, name: Split) -> "ImageDataset":
        """Return the pictures of one split."""
        return ImageDataset(self.table.filter(pc.equal(self.table.column("split"), name)), self.origin)

    def without(self, ids: Collection[str]) -> "ImageDataset":
        """Return the pictures whose ids are not among the given."""
        if not ids:
            return self
        gone = pc.is_in(self.table.column("id"), value_set=pa.array(sorted(ids), type=pa.string()))
        return ImageDataset(self.table.filter(pc.invert(gone)), self.origin)

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

    def write(self, path: Path) -> None:
        """Write an Arrow IPC file, uncompressed, that `read` can memory-map."""
        table = self.table.replace_schema_metadata({"origin": self.origin})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1024)

    @classmethod
    def read(cls, path: Path) -> "ImageDataset":
        """Memory-map a file that `write` wrote."""
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        origin = (table.schema.metadata or {}).get(b"origin", b"").decode()
        return cls(table.replace_schema_metadata(None), origin)

    def _column(self, name: str) -> list[str]:
        return list(self.table.column(name).to_pylist())
