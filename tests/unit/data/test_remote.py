import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import fsspec
import pytest
from kagglesdk import kaggle_env

from imago.config import DataConfig
from imago.data import remote
from imago.data.sources import load_dataset, source_state
from imago.errors import ConfigError, DataRefused
from tests.loopback import serving
from tests.unit.data import hubs
from tests.unit.data.pictures import write_classes
from tests.waiting import until


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))


@pytest.fixture
def bucket(tmp_path):
    """A store in memory that holds `moths/` with two classes of four pictures."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    write_classes(tmp_path / "source", {"a": 4, "b": 4})
    for path in (tmp_path / "source").rglob("*.jpg"):
        store.pipe(f"/moths/{path.relative_to(tmp_path / 'source')}", path.read_bytes())
    yield store
    store.store.clear()


class Folder(SimpleHTTPRequestHandler):
    """A folder over HTTP, which logs nothing."""

    def log_message(self, *_):
        return


def load(source):
    return load_dataset(DataConfig(source=source), 0)


def test_remote_folder_is_read_as_the_local_one(bucket, tmp_path):
    bucket.pipe("/moths/notes.txt", b"not fetched")
    fetched = load("memory://moths")
    assert fetched.fingerprint == load(str(tmp_path / "source")).fingerprint
    assert not list((tmp_path / "home").rglob("notes.txt"))


def test_remote_folder_is_fetched_once_while_it_stays_the_same(bucket, monkeypatch):
    before = load("memory://moths")
    monkeypatch.setattr(type(bucket), "get", lambda *_, **__: pytest.fail("fetched again"))
    assert load("memory://moths").fingerprint == before.fingerprint


def test_state_and_cache_follow_what_is_there(bucket):
    state, before = source_state("memory://moths"), load("memory://moths")
    assert source_state("memory://moths") == state
    bucket.pipe("/moths/a/new.jpg", b"another")
    assert source_state("memory://moths") != state
    assert len(load("memory://moths")) == len(before) + 1


def test_a_fetch_that_broke_off_is_not_read_and_goes_on_where_it_did(bucket, tmp_path, monkeypatch):
    whole = type(bucket).get

    def break_off(self, sources, targets, **_):
        whole(self, sources[:3], targets[:3])
        cut = Path(targets[2])
        cut.write_bytes(cut.read_bytes()[:-9])
        raise ConnectionError("the line went dead")

    with monkeypatch.context() as broken:
        broken.setattr(type(bucket), "get", break_off)
        with pytest.raises(ConfigError, match="memory://moths cannot be fetched: the line went dead"):
            load("memory://moths")
    assert not [path for path in (tmp_path / "home").rglob("*.jpg") if ".partial-" not in str(path)]
    fetched = []
    monkeypatch.setattr(type(bucket), "get", lambda self, *names, **_: [fetched.extend(names[0]), whole(self, *names)])
    assert load("memory://moths").fingerprint == load(str(tmp_path / "source")).fingerprint
    assert len(fetched) == 6


def test_a_store_that_gives_less_than_it_listed_is_refused(bucket, monkeypatch):
    whole = type(bucket).get

    def cut(self, sources, targets, **_):
        whole(self, sources, targets)
        Path(targets[4]).write_bytes(b"half")

    monkeypatch.setattr(type(bucket), "get", cut)
    with pytest.raises(ConfigError, match=r"b/0\.jpg did not come whole; run it again to go on"):
        load("memory://moths")


def test_of_two_processes_at_once_one_fetches_and_both_read(tmp_path):
    source = write_classes(tmp_path / "source", {"a": 4, "b": 4})
    looked, fetched = [], Counter()

    class Slow(Folder):
        def do_HEAD(self):
            looked.append(self.path)
            super().do_HEAD()

        def do_GET(self):
            if self.path.endswith(".jpg"):
                fetched[self.path] += 1
                until(lambda: looked.count(self.path) >= 2, 30, "the other process has not begun")
            super().do_GET()

    code = "import sys; from pathlib import Path; from imago.data.remote import fetch; "
    code += "print(fetch(sys.argv[1], Path(sys.argv[2])))"
    with serving(partial(Slow, directory=str(source))) as address:
        command = [sys.executable, "-c", code, f"{address}/", str(tmp_path / "cache")]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        places = [process.communicate(timeout=60)[0].strip() for process in both]
    assert places[0] == places[1]
    assert len(list(Path(places[0]).rglob("*.jpg"))) == 8
    assert set(fetched.values()) == {1}


def test_remote_manifest_brings_only_what_it_names(bucket, tmp_path):
    bucket.pipe("/moths/moths.csv", b"path,label\na/0.jpg,a\nb/1.jpg,b\nb/gone.jpg,b\n")
    dataset = load("memory://moths/moths.csv")
    assert sorted(dataset.ids) == ["a/0.jpg", "b/1.jpg", "b/gone.jpg"]
    assert {path.name for path in (tmp_path / "home").rglob("*.jpg")} == {"0.jpg", "1.jpg"}


def test_remote_names_that_would_leave_the_cache_are_not_fetched(bucket, tmp_path):
    bucket.store["/moths/../../evil.jpg"] = bucket.store["/moths/a/0.jpg"]
    bucket.store["/moths/a/../../evil.jpg"] = bucket.store["/moths/a/0.jpg"]
    assert len(load("memory://moths")) == 8
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("memory://nothing", ConfigError, "nothing at memory://nothing"),
        ("nosuch://moths", ConfigError, "nosuch://moths cannot be read"),
        ("memory://papers", DataRefused, "no pictures at memory://papers"),
    ],
)
def test_address_without_pictures_is_refused(bucket, source, error, message):
    bucket.pipe("/papers/a.txt", b"text")
    for ask in (load, source_state):
        with pytest.raises(error, match=message):
            ask(source)


def test_kaggle_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ConfigError, match="pip install"):
        load("kaggle:owner/moths")


def test_kaggle_handle_of_another_form_is_refused():
    with pytest.raises(ConfigError, match="kaggle:owner/name"):
        load("kaggle:../moths")


@pytest.fixture
def kaggle_at(tmp_path, monkeypatch):
    """Points the real client at an address."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    return lambda address: monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, address)


def test_kaggle_data_set_is_downloaded_once_and_read(tmp_path, kaggle_at):
    source = write_classes(tmp_path / "source", {"a": 4, "b": 4})
    with hubs.kaggle("owner", "moths", source) as address:
        kaggle_at(address)
        dataset = load("kaggle:owner/moths")
        written = sorted((tmp_path / "kaggle").rglob("*.jpg"))
        assert load("kaggle:owner/moths").fingerprint == dataset.fingerprint == load(str(source)).fingerprint
    assert (len(dataset), len(written)) == (8, 8)
    assert dataset.origin.startswith("kaggle:owner/moths was read as class folders")


def test_kaggle_archive_that_did_not_come_whole_is_not_read(tmp_path, kaggle_at):
    source = write_classes(tmp_path / "source", {"a": 4, "b": 4})
    with hubs.kaggle("owner", "moths", source, cut=40) as address:
        kaggle_at(address)
        with pytest.raises(ConfigError, match="'owner/moths' cannot be downloaded"):
            load("kaggle:owner/moths")
    with hubs.kaggle("owner", "moths", source) as address:
        kaggle_at(address)
        assert len(load("kaggle:owner/moths")) == 8


def test_kaggle_data_set_that_is_not_there_is_one_line(tmp_path, kaggle_at):
    with hubs.kaggle("owner", "moths", tmp_path) as address:
        kaggle_at(address)
        with pytest.raises(ConfigError, match=r"'owner/other' cannot be downloaded: .*403"):
            remote.fetch_kaggle("owner/other")


@pytest.mark.parametrize(
    "source",
    ["sftp://me:pass@host/moths", "https://host/moths.csv?X-Amz-Signature=ab", "https://host/m.csv?sig=ab&se=1"],
)
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(source):
    with pytest.raises(ConfigError, match="on host holds a password or a key") as refused:
        load(source)
    assert "pass@" not in str(refused.value)
    assert "=ab" not in str(refused.value)


def test_over_http_a_picture_that_changed_is_fetched_again(tmp_path):
    source = write_classes(tmp_path / "source", {"a": 4, "b": 4})

    with serving(partial(Folder, directory=str(source))) as address:
        before = load(f"{address}/").fingerprint
        assert load(f"{address}/").fingerprint == before == load(str(source)).fingerprint
        (source / "a" / "0.jpg").write_bytes((source / "b" / "0.jpg").read_bytes())
        assert load(f"{address}/").fingerprint == load(str(source)).fingerprint != before


@pytest.mark.usefixtures("bucket")
def test_what_was_taken_out_of_the_cache_is_fetched_again(tmp_path):
    before = load("memory://moths")
    shutil.rmtree(tmp_path / "home" / "datasets")
    next((tmp_path / "home" / "sources").rglob("*.jpg")).unlink()
    assert load("memory://moths").fingerprint == before.fingerprint


def test_few_versions_of_a_source_are_kept(bucket, tmp_path):
    for number in range(4):
        bucket.pipe(f"/moths/a/new{number}.jpg", b"another")
        load("memory://moths")
    (place,) = (tmp_path / "home" / "sources").iterdir()
    assert len([path for path in place.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("source", ["simplecache::https://u:p@host/moths", "https://token@host/moths.csv"])
def test_a_secret_in_any_part_of_an_address_is_refused(source):
    with pytest.raises(ConfigError, match="on host holds a password or a key"):
        load(source)


def test_a_zip_is_read_from_its_root(tmp_path):
    source = write_classes(tmp_path / "source", {"a": 4, "b": 4})
    archive = shutil.make_archive(str(tmp_path / "moths"), "zip", source)
    assert load(f"zip://::{archive}").fingerprint == load(str(source)).fingerprint


def test_a_manifest_may_name_pictures_without_an_extension(bucket):
    bucket.pipe("/moths/plain", bucket.cat("/moths/a/0.jpg"))
    bucket.pipe("/moths/moths.csv", b"path;label\nplain;a\nb/1.jpg;b\n")
    dataset = load("memory://moths/moths.csv")
    assert all(dataset.image(index) for index in range(2))


def listing(monkeypatch, bucket, **sizes):
    """Let the store list other sizes than it has, and fail where anything is fetched."""
    whole = type(bucket).find

    def find(self, path, **options):
        found = whole(self, path, **options)
        return {name: info | {"size": sizes.get(Path(name).stem, info["size"])} for name, info in found.items()}

    monkeypatch.setattr(type(bucket), "find", find)
    monkeypatch.setattr(type(bucket), "get", lambda *_, **__: pytest.fail("fetched"))


def test_a_picture_too_large_to_be_read_is_refused_before_anything_is_fetched(bucket, monkeypatch):
    bucket.pipe("/moths/a/huge.jpg", b"huge")
    listing(monkeypatch, bucket, huge=67_108_865)
    with pytest.raises(DataRefused, match=r"a/huge\.jpg at memory://moths has 67,108,865 bytes, .* 67,108,864: make"):
        load("memory://moths")


def test_more_than_the_disk_takes_is_refused_before_anything_is_fetched(bucket, monkeypatch):
    listing(monkeypatch, bucket)
    total = sum(info["size"] for info in bucket.find("/moths", detail=True).values())
    usage = shutil.disk_usage("/")._replace(free=total - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    said = f"has {total:,} bytes to fetch, and .* room for {total - 1:,}: make room, .* Nothing was fetched"
    with pytest.raises(ConfigError, match=said):
        load("memory://moths")


def test_a_refusal_after_the_manifest_was_fetched_does_not_say_that_nothing_was(bucket, monkeypatch):
    bucket.pipe("/moths/moths.csv", b"path,label\na/0.jpg,a\nb/huge.jpg,b\n")
    bucket.pipe("/moths/b/huge.jpg", b"huge")
    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 3)
    with pytest.raises(DataRefused, match=r"take it away\. No more was fetched\."):
        load("memory://moths/moths.csv")


@pytest.mark.parametrize("defect", [TypeError("a defect"), KeyError("a defect"), MemoryError("a defect")])
def test_a_defect_or_want_of_memory_is_not_taken_for_a_wrong_address(bucket, monkeypatch, defect):
    def fail(*_, **__):
        raise defect

    monkeypatch.setattr(type(bucket), "get", fail)
    with pytest.raises(type(defect), match="a defect"):
        load("memory://moths")


class OwnError(Exception):
    """As botocore, azure, paramiko and aiohttp have them."""


@pytest.mark.parametrize("error", [OwnError("no access"), TimeoutError("no access"), RuntimeError("no access")])
def test_what_a_client_raises_is_said_of_the_address(bucket, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(type(bucket), "get", fail)
    with pytest.raises(ConfigError, match="memory://moths cannot be fetched: no access"):
        load("memory://moths")
