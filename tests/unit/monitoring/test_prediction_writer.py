"""Predictions are kept off the request's path, and a store that fails costs no answer."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from imago.errors import ImagoError
from imago.monitoring.prediction_store import MOST_KEPT, PredictionStore
from imago.monitoring.prediction_writer import PredictionWriter
from tests.unit.monitoring.test_prediction_store import row


class Disk(PredictionStore):
    """A store on a disk that can be full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.full = False
        self.written = Event()
        self.pruned = Event()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.full:
            raise ImagoError("The disk is full.")
        super().add(rows)
        self.written.set()

    def prune(self, before: datetime, *, model: str, most: int = MOST_KEPT) -> int:
        forgotten = super().prune(before, model=model, most=most)
        self.pruned.set()
        return forgotten


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "predictions.sqlite")


@pytest.fixture
def writer(disk: Disk) -> Iterator[PredictionWriter]:
    writer = PredictionWriter(disk, interval=0.01, max_pending=3)
    yield writer
    disk.full = False
    writer.close()


def test_rows_are_written_without_being_asked_for(disk: Disk, writer: PredictionWriter) -> None:
    writer.put(row(1))
    assert disk.written.wait(10)
    assert disk.count() == 1


def test_flush_writes_what_waits(disk: Disk) -> None:
    writer = PredictionWriter(disk, interval=60)
    for number in range(5):
        writer.put(row(number))
    assert writer.flush()
    assert disk.count() == 5
    writer.close()


def test_closing_writes_what_waits(disk: Disk) -> None:
    writer = PredictionWriter(disk, interval=60)
    writer.put(row(1))
    writer.close()
    assert disk.count() == 1


def test_the_log_stays_between_writes_and_is_cleared_away_at_the_end(disk: Disk) -> None:
    writer = PredictionWriter(disk, interval=60)
    log = disk.path.with_name(f"{disk.path.name}-wal")
    for number in range(2):
        writer.put(row(number))
        writer.flush()
        assert log.exists()
    assert PredictionStore(disk.path).count() == 2
    writer.close()
    assert not log.exists()
    assert disk.count() == 2


def test_a_file_that_was_removed_is_made_anew(disk: Disk) -> None:
    writer = PredictionWriter(disk, interval=60)
    writer.put(row(1))
    writer.flush()
    for file in disk.path.parent.iterdir():
        file.unlink()
    writer.put(row(2))
    assert writer.flush()
    assert disk.window()["prediction_id"].to_pylist() == ["id-2"]
    writer.close()


def test_a_full_disk_loses_nothing_while_there_is_room(disk: Disk, writer: PredictionWriter) -> None:
    disk.full = True
    writer.put(row(1))
    writer.put(row(2))
    assert not writer.flush()
    disk.full = False
    assert writer.flush()
    assert disk.window().column("prediction_id").to_pylist() == ["id-1", "id-2"]
    assert writer.lost == 0


def test_where_too_many_wait_the_oldest_is_lost_and_counted(disk: Disk, writer: PredictionWriter) -> None:
    disk.full = True
    for number in range(5):
        writer.put(row(number))
    assert not writer.flush()
    disk.full = False
    assert writer.flush()
    assert disk.window().column("prediction_id").to_pylist() == ["id-2", "id-3", "id-4"]
    assert writer.lost == 2


def test_the_thread_recovers_by_itself(disk: Disk, writer: PredictionWriter) -> None:
    disk.full = True
    writer.put(row(1))
    assert not writer.flush()
    disk.full = False
    assert disk.written.wait(10)
    assert disk.count() == 1


def test_what_is_too_old_is_forgotten(disk: Disk) -> None:
    now = datetime.now(UTC)
    disk.add([row(1, time=now - timedelta(days=91)), row(2, time=now - timedelta(days=89))])
    writer = PredictionWriter(disk, interval=0.01, prune=lambda: disk.prune(now - timedelta(days=90), model="moths"))
    writer.put(row(3, time=now))
    assert disk.pruned.wait(10)
    writer.close()
    assert disk.window().column("prediction_id").to_pylist() == ["id-2", "id-3"]
