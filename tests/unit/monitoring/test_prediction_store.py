"""What the prediction store keeps, and how it gives it back."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imago.errors import ImagoError
from imago.monitoring import prediction_store
from imago.monitoring.prediction_store import (
    COLUMNS,
    Counted,
    Mirrored,
    PredictionStore,
    prediction_row,
    timestamp,
    to_table,
)
from imago.serving.runtime import Prediction

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def row(number: int, *, time: datetime = NOON, version: str = "1") -> dict[str, Any]:
    prediction = Prediction(
        label="green",
        probability=0.75,
        top=(("green", 0.75), ("red", 0.25)),
        rejected=number % 2 == 1,
        reason=None,
        embedding=np.array([number, 0.5, -1.0], dtype=np.float32),
        features={"brightness": 0.4, "contrast": 0.1, "sharpness": 0.2, "red": 0.3, "green": 0.5, "blue": 0.1},
        width=640,
        height=480,
    )
    return prediction_row(prediction, prediction_id=f"id-{number}", time=time, model="moths", version=version)


def shadow_row(number: int, *, time: datetime = NOON, version: str = "2", label: str | None = "red") -> dict[str, Any]:
    answer = {"label": label, "probability": 0.5, "rejected": 1, "seconds": 0.02} if label else {"failure": "refused"}
    told = {"prediction_id": f"id-{number}", "time": timestamp(time), "version": version, "champion_seconds": 0.01}
    return told | answer


BEFORE_SHADOWS = """
CREATE TABLE predictions (prediction_id TEXT PRIMARY KEY, time TEXT NOT NULL, model TEXT NOT NULL,
version TEXT NOT NULL, label TEXT NOT NULL, probability REAL NOT NULL, rejected INTEGER NOT NULL, brightness REAL,
contrast REAL, sharpness REAL, red REAL, green REAL, blue REAL, width INTEGER, height INTEGER, embedding BLOB,
feedback TEXT);
CREATE INDEX predictions_time ON predictions (time);
INSERT INTO predictions VALUES ('id-1', '2026-03-01T12:00:00.000000+00:00', 'moths', '1', 'green', 0.75, 0, 0.4, 0.1,
0.2, 0.3, 0.5, 0.1, 640, 480, NULL, 'red');
"""


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    return PredictionStore(tmp_path / "deep" / "predictions.sqlite")


def test_a_row_comes_back_as_it_was_kept(store: PredictionStore) -> None:
    store.add([row(1)])
    table = store.window()
    assert tuple(table.column_names) == COLUMNS
    (found,) = table.to_pylist()
    assert found["embedding"] == [1.0, 0.5, -1.0]
    assert found["rejected"] is True
    assert found["time"] == "2026-03-01T12:00:00.000000+00:00"
    assert (found["label"], found["probability"], found["width"], found["height"]) == ("green", 0.75, 640, 480)
    assert (found["brightness"], found["blue"], found["feedback"]) == (0.4, 0.1, None)


def test_window_takes_its_start_and_leaves_its_end(store: PredictionStore) -> None:
    store.add([row(hour, time=NOON + timedelta(hours=hour)) for hour in (3, 1, 2, 0)])
    ids = store.window(NOON + timedelta(hours=1), NOON + timedelta(hours=3)).column("prediction_id").to_pylist()
    assert ids == ["id-1", "id-2"]
    assert store.window(NOON + timedelta(hours=9)).num_rows == 0


def test_moments_of_other_zones_are_compared_as_moments(store: PredictionStore) -> None:
    east = timezone(timedelta(hours=9))
    store.add([row(1, time=NOON.astimezone(east))])
    assert store.window(NOON, NOON + timedelta(seconds=1)).num_rows == 1
    assert timestamp(NOON.astimezone(east)) == timestamp(NOON)


def test_window_can_be_of_one_version(store: PredictionStore) -> None:
    store.add([row(1, version="1"), row(2, version="2")])
    assert store.window(version="2").column("prediction_id").to_pylist() == ["id-2"]


def test_feedback_is_kept_and_the_last_word_counts(store: PredictionStore) -> None:
    store.add([row(1)])
    assert store.feedback("id-1", "red", model="moths")
    assert store.feedback("id-1", "blue", model="moths")
    assert store.window().column("feedback").to_pylist() == ["blue"]


def test_feedback_on_an_unknown_prediction_is_refused(store: PredictionStore) -> None:
    assert not store.feedback("id-1", "red", model="moths")
    store.add([row(1)])
    assert not store.feedback("id-2", "red", model="moths")


def test_feedback_on_another_models_prediction_is_refused(store: PredictionStore) -> None:
    store.add([row(1)])
    assert not store.feedback("id-1", "red", model="birds")
    assert store.window().column("feedback").to_pylist() == [None]


def test_feedback_on_an_unknown_prediction_waits_for_nobody_who_writes(store: PredictionStore) -> None:
    store.add([row(1)])
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert not store.feedback("id-2", "red", model="moths")


def test_a_row_that_is_kept_twice_counts_once(store: PredictionStore) -> None:
    store.add([row(1)])
    store.feedback("id-1", "red", model="moths")
    store.add([row(1), row(2)])
    assert store.window().column("feedback").to_pylist() == ["red", None]


def test_reading_makes_no_file(store: PredictionStore) -> None:
    assert store.window().num_rows == 0
    assert store.count() == 0
    assert not store.path.exists()


def test_prune_forgets_what_is_older(store: PredictionStore) -> None:
    store.add([row(day, time=NOON + timedelta(days=day)) for day in range(3)])
    assert store.prune(NOON + timedelta(days=2), model="moths") == 2
    assert store.window().column("prediction_id").to_pylist() == ["id-2"]


def test_prune_forgets_the_oldest_of_too_many_and_their_shadows(store: PredictionStore) -> None:
    moments = [NOON + timedelta(days=day) for day in range(5)]
    store.add([row(number, time=moment) for number, moment in enumerate(moments)])
    store.add_shadows([shadow_row(number, time=moment) for number, moment in enumerate(moments)])
    assert store.prune(NOON, model="moths", most=5) == 0
    assert store.prune(NOON + timedelta(days=1), model="moths", most=2) == 3
    assert store.window().column("prediction_id").to_pylist() == ["id-3", "id-4"]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT prediction_id FROM shadows ORDER BY 1").fetchall() == [("id-3",), ("id-4",)]


def test_one_model_that_is_asked_much_costs_another_none_of_its_predictions(store: PredictionStore) -> None:
    store.add([row(number, time=NOON + timedelta(hours=number)) for number in range(4)])
    store.add([row(number, time=NOON - timedelta(hours=number)) | {"model": "butterflies"} for number in range(4, 7)])
    assert store.prune(NOON - timedelta(days=1), model="moths", most=2) == 2
    assert (store.count(model="moths"), store.count(model="butterflies")) == (2, 3)
    assert store.prune(NOON + timedelta(days=1), model="moths") == 2
    assert store.count(model="butterflies") == 3


def test_comparing_a_shadow_reads_what_it_was_asked_and_not_every_prediction(store: PredictionStore) -> None:
    store.add([row(1)])
    values = {"model": "moths", "champion": "1", "shadow": "2", "most": 9}
    with sqlite3.connect(store.path) as connection:
        for query in (prediction_store._MIRRORED, prediction_store._COUNTED, prediction_store._LAST_PAIR):
            steps = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            assert any(step.startswith("SCAN s") for step in steps), steps


def test_much_is_forgotten_in_portions_between_which_others_write(
    store: PredictionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_store, "PORTION", 10)
    store.add([row(number, time=NOON) for number in range(25)])
    store.add_shadows([shadow_row(number, time=NOON) for number in range(25)])
    begun: list[str] = []
    connect = sqlite3.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda said: begun.append(said) if said.startswith("BEGIN") else None)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    assert store.prune(NOON + timedelta(days=1), model="moths") == 25
    assert len(begun) == 3 + 1 + 1  # those too old, those too many, and the shadows of none
    assert store.count() == 0


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.sqlite"
    path.write_text("This is a letter, not a database. " * 40)
    with pytest.raises(ImagoError, match=r"predictions\.sqlite cannot be used"):
        PredictionStore(path).window()
    with pytest.raises(ImagoError, match="cannot be used"):
        PredictionStore(path).add([row(1)])


def test_another_process_may_write_meanwhile(store: PredictionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add([row(0)])
    asked, connect = threading.Event(), sqlite3.connect

    def telling(*arguments: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        connection.set_trace_callback(lambda statement: asked.set() if statement.startswith("INSERT") else None)
        return connection

    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
        "print('held', flush=True); sys.stdin.read(); "
        "c.execute('UPDATE predictions SET feedback = ?', ('red',)); c.commit()"
    )
    command = [sys.executable, "-c", code, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(sqlite3, "connect", telling)
        adding = threading.Thread(target=store.add, args=([row(1)],))
        adding.start()
        assert asked.wait(10)
        assert store.window().num_rows == 1  # it waits for the other
        other.stdin.close()
        adding.join(10)
        assert store.window().num_rows == 2
    assert store.window().column("feedback").to_pylist() == ["red", None]


def test_readers_do_not_wait_for_a_writer(store: PredictionStore) -> None:
    store.add([row(0)])
    with sqlite3.connect(store.path, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert store.path.with_name("predictions.sqlite-wal").exists()
        connection = sqlite3.connect(store.path, timeout=0)
        assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (1,)
        connection.close()
        writer.execute("ROLLBACK")


def test_no_rows_make_an_empty_table_of_the_same_shape() -> None:
    assert to_table([]).schema == to_table([row(1)]).schema


def test_of_very_many_a_sample_is_read_and_all_are_counted(store: PredictionStore) -> None:
    store.add([row(number, time=NOON + timedelta(seconds=number)) for number in range(50)])
    store.add([row(99, time=NOON + timedelta(seconds=99), version="2")])
    until = NOON + timedelta(hours=1)
    sample = store.window(NOON, until, model="moths", version="1", most=7).to_pylist()
    assert len(sample) == 7
    assert sample == store.window(NOON, until, model="moths", version="1", most=7).to_pylist()
    assert [one["time"] for one in sample] == sorted(one["time"] for one in sample)
    assert store.count(NOON, until, model="moths", version="1") == 50
    assert store.count(NOON, until, model="butterflies") == 0
    assert store.last_version("moths", NOON, until) == "2"
    assert store.last_version("moths", NOON, NOON) is None


def test_what_a_shadow_said_is_given_back_beside_what_was_answered(store: PredictionStore) -> None:
    store.add([row(1), row(2), row(3), row(4)])
    store.add_shadows([shadow_row(1), shadow_row(2, label=None), shadow_row(3, version="3"), shadow_row(9)])
    store.feedback("id-1", "red", model="moths")
    assert store.mirrored("moths", "1", "2", most=9) == [
        Mirrored("green", False, None, None, False, 0.01, None, "refused", timestamp(NOON)),
        Mirrored("green", True, "red", "red", True, 0.01, 0.02, None, timestamp(NOON)),
    ]
    assert store.mirrored("moths", "2", "1", most=9) == store.mirrored("butterflies", "1", "2", most=9) == []


def test_the_last_that_two_versions_were_asked_come_first_and_where_it_gave_no_answer(store: PredictionStore) -> None:
    moments = [NOON + timedelta(minutes=minute) for minute in (0, 3, 1, 3, 2)]
    store.add([row(number, time=moment) for number, moment in enumerate(moments)])
    labels = ("red", "red", "blue", None, "green")
    store.add_shadows([
        shadow_row(number, time=moment, label=label)
        for number, (moment, label) in enumerate(zip(moments, labels, strict=True))
    ])  # fmt: skip
    found = [one.shadow_label for one in store.mirrored("moths", "1", "2", most=4)]
    assert found == [None, "red", "green", "blue"]


def test_what_two_versions_said_is_counted(store: PredictionStore) -> None:
    later = NOON + timedelta(hours=1)
    store.add([row(number) for number in range(8)])  # every other one rejected
    store.add_shadows([shadow_row(number, time=later if number == 4 else NOON) for number in range(6)])
    store.add_shadows([shadow_row(6, label=None), shadow_row(7, version="3")])
    store.feedback("id-0", "red", model="moths")
    assert sorted(store.counted("moths", "1", "2"), key=str) == [
        Counted("green", False, False, "red", True, True, None, 1, timestamp(NOON)),
        Counted("green", False, None, "red", True, None, None, 2, timestamp(later)),
        Counted("green", False, None, None, False, None, "refused", 1, timestamp(NOON)),
        Counted("green", True, None, "red", True, None, None, 3, timestamp(NOON)),
    ]


def test_a_shadow_counts_in_no_window(store: PredictionStore) -> None:
    store.add([row(1)])
    store.add_shadows([shadow_row(1), shadow_row(2)])
    assert store.window().column("prediction_id").to_pylist() == ["id-1"]
    assert store.window(version="2").num_rows == 0
    assert store.count() == 1
    assert store.last_version("moths", NOON, NOON + timedelta(hours=1)) == "1"


def test_the_pair_that_was_mirrored_last_is_known(store: PredictionStore) -> None:
    assert store.last_pair("moths") is None
    assert not store.path.exists()
    store.add([row(1), row(2, time=NOON + timedelta(hours=1), version="2")])
    store.add_shadows([shadow_row(2, time=NOON + timedelta(hours=1), version="3"), shadow_row(1)])
    assert store.last_pair("moths") == ("2", "3")
    assert store.last_pair("butterflies") is None


def test_prune_forgets_the_shadows_of_what_it_forgets(store: PredictionStore) -> None:
    moments = [NOON + timedelta(days=day) for day in range(3)]
    store.add([row(number, time=moment) for number, moment in enumerate(moments)])
    store.add_shadows([shadow_row(number, time=moment) for number, moment in enumerate(moments)])
    assert store.prune(NOON + timedelta(days=2), model="moths") == 2
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT prediction_id FROM shadows").fetchall() == [("id-2",)]


def test_a_store_of_before_shadows_takes_them_and_keeps_what_it_has(store: PredictionStore) -> None:
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as old:
        old.executescript(BEFORE_SHADOWS)
    old.close()
    assert store.mirrored("moths", "1", "2", most=9) == []
    store.add_shadows([shadow_row(1)])
    assert store.mirrored("moths", "1", "2", most=9) == [
        Mirrored("green", False, "red", "red", True, 0.01, 0.02, None, timestamp(NOON))
    ]
    store.add([row(2)])
    assert store.window().column("prediction_id").to_pylist() == ["id-1", "id-2"]
