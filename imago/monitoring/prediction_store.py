"""What the endpoint was asked and what it answered: one SQLite file that several processes may write.

What a shadow answered to the same pictures stands in a table of its own, which no window of predictions reads.

No pandas in here, and Arrow only where a window is read: the endpoint imports it.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imago.data.features import FEATURES
from imago.errors import ImagoError

if TYPE_CHECKING:
    import pyarrow as pa

    from imago.serving.runtime import Prediction

MOST_KEPT = 1_000_000  # predictions of a model, which take 5 to 9 GB
PORTION = 5_000  # of what is forgotten, in one transaction: others write in between

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

_SHADOW_TYPES = {
    "prediction_id": "TEXT PRIMARY KEY",  # of the prediction that the client was given
    "time": "TEXT NOT NULL",  # of that prediction
    "version": "TEXT NOT NULL",  # the shadow's
    "label": "TEXT",
    "probability": "REAL",
    "rejected": "INTEGER",
    "seconds": "REAL",  # of one core, for decoding and the graph
    "champion_seconds": "REAL",  # likewise, of the version that the client was answered by
    "failure": "TEXT",  # why there is no answer
}
SHADOW_COLUMNS = tuple(_SHADOW_TYPES)


def _create(table: str, types: Mapping[str, str]) -> str:
    return f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(f'{name} {kind}' for name, kind in types.items())})"


def _insert(table: str, columns: Sequence[str]) -> str:
    values = ", ".join(f":{name}" for name in columns)
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - constants all


_SCHEMA = (
    _create("predictions", _TYPES),
    "CREATE INDEX IF NOT EXISTS predictions_time ON predictions (time)",
    "CREATE INDEX IF NOT EXISTS predictions_model ON predictions (model, time)",
    _create("shadows", _SHADOW_TYPES),
    "CREATE INDEX IF NOT EXISTS shadows_time ON shadows (time)",
)
_INSERT = _insert("predictions", COLUMNS)
_INSERT_SHADOW = _insert("shadows", SHADOW_COLUMNS)
_LAST_OVER = "SELECT time FROM predictions WHERE model = :model ORDER BY time DESC LIMIT 1 OFFSET :most"
_OLD = "model = :model AND time < :before"
_OVER = "model = :model AND time <= :last_over"
_KNOWN = "SELECT 1 FROM predictions WHERE prediction_id = :prediction_id AND model = :model"
_FEEDBACK = "UPDATE predictions SET feedback = :label WHERE prediction_id = :prediction_id AND model = :model"
_WITHIN = "FROM predictions WHERE time >= :since AND time < :until"
_OF_WHOM = " AND (:model IS NULL OR model = :model) AND (:version IS NULL OR version = :version)"
_COUNT = f"SELECT count(*) {_WITHIN}{_OF_WHOM}"
_LAST_VERSION = f"SELECT version {_WITHIN} AND model = :model ORDER BY time DESC LIMIT 1"
_WINDOW = f"""
SELECT * FROM (SELECT {", ".join(COLUMNS)} {_WITHIN}{_OF_WHOM} ORDER BY prediction_id LIMIT :most)
ORDER BY time, prediction_id
"""  # noqa: S608 - of random ids the first in their order are a sample
_FORGET_LONE = """
DELETE FROM shadows WHERE time < :before
AND NOT EXISTS (SELECT 1 FROM predictions p WHERE p.prediction_id = shadows.prediction_id)
"""
_PAIRS = "FROM shadows s JOIN predictions p USING (prediction_id) WHERE +p.model = :model"  # +: shadows are fewer
_OF_PAIR = f"{_PAIRS} AND p.version = :champion AND s.version = :shadow"
_MIRRORED = f"""
SELECT p.label, p.rejected, p.feedback, s.label, s.rejected, s.champion_seconds, s.seconds, s.failure, s.time
{_OF_PAIR} ORDER BY s.time DESC, s.label IS NOT NULL LIMIT :most
"""
_COUNTED = f"""
SELECT p.label, p.rejected, p.feedback = p.label, s.label, s.rejected, p.feedback = s.label, s.failure,
       count(*), max(s.time)
{_OF_PAIR} GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_LAST_PAIR = f"SELECT p.version, s.version {_PAIRS} ORDER BY s.time DESC LIMIT 1"


class Mirrored(NamedTuple):
    """What two versions said of one picture: the champion, whose answer was returned, and its shadow."""

    label: str
    rejected: bool
    feedback: str | None  # the true label, once somebody has said it
    shadow_label: str | None  # None: it gave no answer
    shadow_rejected: bool
    seconds: float | None  # of one core
    shadow_seconds: float | None
    failure: str | None
    time: str  # as `timestamp` writes it


class Counted(NamedTuple):
    """How many pictures there are of which two versions said the same two things, and when the last was asked."""

    label: str
    rejected: bool
    right: bool | None  # None: nobody has said the true label
    shadow_label: str | None  # None: it gave no answer
    shadow_rejected: bool
    shadow_right: bool | None
    failure: str | None
    pictures: int
    last: str  # as `timestamp` writes it


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

    def add_shadows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a shadow answered, by `SHADOW_COLUMNS`. Raises ImagoError where the file cannot be written."""
        with self._connect(create=True) as connection:
            connection.executemany(_INSERT_SHADOW, [{name: row.get(name) for name in SHADOW_COLUMNS} for row in rows])

    def mirrored(self, model: str, champion: str, shadow: str, *, most: int) -> list[Mirrored]:
        """Return so many of the pictures that both of two versions were asked last, the last first.

        Of those of one moment, the ones that the shadow gave no answer to come first.
        """
        values = {"model": model, "champion": champion, "shadow": shadow, "most": most}
        return [
            Mirrored(label, bool(rejected), feedback, theirs, bool(they_rejected), *rest)
            for label, rejected, feedback, theirs, they_rejected, *rest in self._rows(_MIRRORED, values)
        ]

    def counted(self, model: str, champion: str, shadow: str) -> list[Counted]:
        """Return what both of two versions were asked, counted: as many as their labels make, however many pictures."""
        values = {"model": model, "champion": champion, "shadow": shadow}
        return [
            Counted(label, bool(rejected), _flag(right), theirs, bool(they_rejected), _flag(they_right), *rest)
            for label, rejected, right, theirs, they_rejected, they_right, *rest in self._rows(_COUNTED, values)
        ]

    def last_pair(self, model: str) -> tuple[str, str] | None:
        """Return the versions of a model that were mirrored last, champion and shadow, or None where none were."""
        rows = self._rows(_LAST_PAIR, {"model": model})
        return (str(rows[0][0]), str(rows[0][1])) if rows else None

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

    def feedback(self, prediction_id: str, label: str, *, model: str) -> bool:
        """Keep the true label of a model's prediction; False where that model has made no such prediction."""
        known = {"prediction_id": prediction_id, "model": model}
        if not self._rows(_KNOWN, known):  # a write would lock the file, whether or not there is such a row
            return False
        with self._connect() as connection:
            return connection.execute(_FEEDBACK, known | {"label": label}).rowcount > 0

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

    def prune(self, before: datetime, *, model: str, most: int = MOST_KEPT) -> int:
        """Forget the predictions of a model made before a moment, and the oldest of more than so many.

        Return how many they were. Their shadows' go with them, and those of predictions that were never kept.
        """
        last_over = self._rows(_LAST_OVER, {"model": model, "most": most})
        values = {"before": timestamp(before), "model": model, "last_over": last_over[0][0] if last_over else None}
        forgotten = self._forget(_OLD, values) + self._forget(_OVER, values)
        self._rows(_FORGET_LONE, values)
        return forgotten

    def _forget(self, which: str, values: Mapping[str, Any]) -> int:
        """Delete predictions, and what shadows answered to the same, a portion at a time; return how many."""
        some = f"(SELECT prediction_id FROM predictions WHERE {which} ORDER BY time LIMIT {PORTION})"  # noqa: S608
        forgotten = 0
        while self.path.exists():
            with self._connect() as connection:
                connection.execute(f"DELETE FROM shadows WHERE prediction_id IN {some}", values)  # noqa: S608
                gone = connection.execute(f"DELETE FROM predictions WHERE prediction_id IN {some}", values).rowcount  # noqa: S608
            forgotten += gone
            if gone < PORTION:
                break
        return forgotten

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
                for statement in _SCHEMA:  # a store of before shadows gets their table
                    connection.execute(statement)
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


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


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
