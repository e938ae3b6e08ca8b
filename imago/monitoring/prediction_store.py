"""What the endpoint was asked and what it answered: one SQLite file that several processes may write.

No pandas in here, and Arrow only where a window is read: the endpoint imports it.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imago.data.features import FEATURES
from imago.errors import ImagoError

if TYPE_CHECKING:
    import pyarrow as pa

    from imago.serving.runtime import Prediction

_TYPES = {
    "prediction_id": "TEXT PRIMARY KEY",
    "time": "TEXT NOT NULL",  # ISO 8601, UTC, microseconds: sorts as text
    "model": "TEXT NOT NULL",
    "version": "TEXT NOT NULL",
    "label": "TEXT NOT NULL",
    "probability": "REAL NOT NULL",
    "rejected": "INTEGER NOT NULL",
    "brightness": "REAL",
    "contrast": "REAL",
    "sharpness": "REAL",
    "red": "REAL",
    "green": "REAL",
    "blue": "REAL",
    "width": "INTEGER",
    "height": "INTEGER",
    "embedding": "BLOB",  # float32, little-endian
    "feedback": "TEXT",  # the true label, once somebody has said it
}
COLUMNS = tuple(_TYPES)

_CREATE = f"CREATE TABLE IF NOT EXISTS predictions ({', '.join(f'{name} {kind}' for name, kind in _TYPES.items())})"
_INDEX = "CREATE INDEX IF NOT EXISTS predictions_time ON predictions (time)"
_INSERT = (
    f"INSERT OR IGNORE INTO predictions ({', '.join(COLUMNS)}) "  # noqa: S608 - column names are constants
    f"VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
)
_WITHIN = "FROM predictions WHERE time >= :since AND time < :until"
_OF_WHOM = " AND (:model IS NULL OR model = :model) AND (:version IS NULL OR version = :version)"
_COUNT = f"SELECT count(*) {_WITHIN}{_OF_WHOM}"
_LAST_VERSION = f"SELECT version {_WITHIN} AND model = :model ORDER BY time DESC LIMIT 1"
_WINDOW = f"""
SELECT * FROM (SELECT {", ".join(COLUMNS)} {_WITHIN}{_OF_WHOM} ORDER BY prediction_id LIMIT :most)
ORDER BY time, prediction_id
"""  # noqa: S608 - of random ids the first in their order are a sample


def timestamp(moment: datetime) -> str:
    """Write an aware moment the way the store keeps it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def prediction_row(
    prediction: "Prediction", *, prediction_id: str, time: datetime, model: str, version: str
) -> dict[str, Any]:
    """Return what is kept of a prediction, by column."""
    return {
        "prediction_id": prediction_id,
        "time": timestamp(time),
        "model": model,
        "version": version,
        "label": prediction.label,
        "probability": prediction.probability,
        "rejected": prediction.rejected,
        **{name: prediction.features.get(name) for name in FEATURES},
        "width": prediction.width,
        "height": prediction.height,
        "embedding": prediction.embedding,
        "feedback": None,
    }


def to_table(rows: Sequence[Mapping[str, Any]]) -> "pa.Table":
    """Return rows as an Arrow table: `embedding` a list of float32, `time` a string, `rejected` a boolean."""
    import pyarrow as pa

    kinds = {"TEXT": pa.string(), "REAL": pa.float64(), "INTEGER": pa.int32(), "BLOB": pa.list_(pa.float32())}
    schema = pa.schema([(name, kinds[kind.split()[0]]) for name, kind in _TYPES.items()])
    schema = schema.set(schema.get_field_index("rejected"), pa.field("rejected", pa.bool_()))
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    columns["rejected"] = [bool(value) for value in columns["rejected"]]
    columns["embedding"] = [None if value is None else _vector(value) for value in columns["embedding"]]
    return pa.table(columns, schema=schema)


class PredictionStore:
    """Predictions in a SQLite file, made with its folder at the first write; every method opens its own connection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows, but those whose id is there already. Raises ImagoError where the file cannot be written."""
        with self._connect(create=True) as connection:
            connection.executemany(_INSERT, [_encoded(row) for row in rows])

    def hold(self) -> sqlite3.Connection:
        """Return an idle connection to the file, which must be there, for whoever writes often.

        While it is open, SQLite keeps its log, which it else makes and removes around each write: most of the cost.
        """
        try:
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False)
            connection.execute("SELECT 1 FROM predictions LIMIT 1").fetchall()  # only now is the file open
        except sqlite3.Error as error:
            raise ImagoError(f"The prediction store {self.path} cannot be used: {error}") from error
        return connection

    def feedback(self, prediction_id: str, label: str) -> bool:
        """Keep the true label of a prediction; False where no such prediction is known."""
        if not self.path.exists():
            return False
        with self._connect() as connection:
            cursor = connection.execute(
                "UPDATE predictions SET feedback = ? WHERE prediction_id = ?", (label, prediction_id)
            )
            return cursor.rowcount > 0

    def window(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        model: str | None = None,
        version: str | None = None,
        most: int | None = None,
    ) -> "pa.Table":
        """Return the predictions from `since` up to, not including, `until`, the oldest first, as `to_table` does.

        Of more than `most` a sample of so many, the same each time.
        """
        values = _values(since, until, model, version) | {"most": -1 if most is None else most}
        return to_table([dict(zip(COLUMNS, row, strict=True)) for row in self._rows(_WINDOW, values)])

    def count(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        model: str | None = None,
        version: str | None = None,
    ) -> int:
        """Return how many predictions there are in a window."""
        rows = self._rows(_COUNT, _values(since, until, model, version))
        return int(rows[0][0]) if rows else 0

    def last_version(self, model: str, since: datetime, until: datetime) -> str | None:
        """Return the version of a model that answered last in a window, or None where none did."""
        rows = self._rows(_LAST_VERSION, _values(since, until, model, None))
        return str(rows[0][0]) if rows else None

    def prune(self, before: datetime) -> int:
        """Forget the predictions made before a moment; return how many they were."""
        if not self.path.exists():
            return 0
        with self._connect() as connection:
            return connection.execute("DELETE FROM predictions WHERE time < ?", (timestamp(before),)).rowcount

    def _rows(self, query: str, values: Mapping[str, Any]) -> list[Any]:
        if not self.path.exists():
            return []
        with self._connect() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def _connect(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=10)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_CREATE)
                connection.execute(_INDEX)
                with connection:
                    yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise ImagoError(f"The prediction store {self.path} cannot be used: {error}") from error


def _values(
    since: datetime | None, until: datetime | None, model: str | None, version: str | None
) -> dict[str, str | int | None]:
    first, last = "" if since is None else timestamp(since), "~" if until is None else timestamp(until)
    return {"since": first, "until": last, "model": model, "version": version}


def _encoded(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: row.get(name) for name in COLUMNS}
    values["rejected"] = int(bool(values["rejected"]))
    if values["embedding"] is not None:
        values["embedding"] = _vector(values["embedding"]).tobytes()
    return values


def _vector(value: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
    if isinstance(value, bytes):
        return np.frombuffer(value, dtype="<f4")
    return np.asarray(value, dtype="<f4")
