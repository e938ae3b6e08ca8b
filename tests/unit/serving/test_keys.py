"""Who may ask: keys with names, kept as digests, given out and revoked while the endpoint serves."""

import json
import logging
import os
import stat
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from imago.errors import ConfigError, ImagoError
from imago.serving import key_file
from imago.serving.keys import LOOK_SECONDS, Keys
from imago.serving.refusal import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self) -> None:
        self.now += LOOK_SECONDS


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bring(key: str) -> Headers:
    return Headers({"x-api-key": key})


def code(keys: Keys, headers: Headers) -> str:
    with pytest.raises(Refusal) as refused:
        keys.name_of(headers)
    assert refused.value.status == 401
    return refused.value.code


@pytest.mark.parametrize("headers", [{"x-api-key": "schlüssel"}, {"authorization": "bearer  schlüssel "}])
def test_the_environments_key_is_taken_either_way(headers: dict[str, str]) -> None:
    assert Keys(fixed="schlüssel").name_of(Headers(headers)) == "environment"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, "no_key"), ({"authorization": "Basic abc"}, "no_key"), ({"x-api-key": "abd"}, "wrong_key"),
     ({"x-api-key": "\xff"}, "wrong_key")],
)  # fmt: skip
def test_any_other_key_is_not(headers: dict[str, str], expected: str) -> None:
    assert code(Keys(fixed="abc"), Headers(headers)) == expected


def test_where_there_is_no_key_nobody_is_asked_for_one() -> None:
    assert Keys(key_file.path()).name_of(Headers({})) is None
    assert Keys(key_file.path(), probe="p").name_of(Headers({})) is None


def test_each_key_is_known_by_its_name() -> None:
    phone, farm = key_file.add("phone")[1], key_file.add("farm")[1]
    keys = Keys(key_file.path(), fixed="abc", probe="p")
    names = [keys.name_of(bring(key)) for key in (phone, farm, "abc", "p")]
    assert names == ["key phone", "key farm", "environment", "probe"]


def test_a_key_is_shown_once_and_kept_as_a_digest_that_none_but_the_owner_reads(home: Path) -> None:
    made, secret = key_file.add("phone")
    text = (home / "keys.json").read_text()
    assert secret not in text
    assert secret.removeprefix("imago_") not in text
    assert made.digest in text
    assert stat.S_IMODE((home / "keys.json").stat().st_mode) == 0o600
    assert not list(home.glob(".keys.*"))
    assert key_file.listed() == (made,)


def test_a_change_is_noticed_within_a_second_and_not_looked_for_more_often(clock: Clock) -> None:
    keys = Keys(key_file.path(), clock=clock)
    assert keys.name_of(Headers({})) is None
    phone, farm = key_file.add("phone")[1], key_file.add("farm")[1]
    assert keys.name_of(Headers({})) is None
    clock.pass_()
    assert code(keys, Headers({})) == "no_key"
    assert keys.name_of(bring(phone)) == "key phone"
    key_file.revoke("phone")
    assert keys.name_of(bring(phone)) == "key phone"
    clock.pass_()
    assert code(keys, bring(phone)) == "wrong_key"
    assert keys.name_of(bring(farm)) == "key farm"


def test_the_last_key_revoked_lets_nobody_in(clock: Clock) -> None:
    secret = key_file.add("phone")[1]
    keys = Keys(key_file.path(), clock=clock)
    key_file.revoke("phone")
    clock.pass_()
    assert code(keys, bring(secret)) == "wrong_key"
    assert code(Keys(key_file.path()), Headers({})) == "no_key"


@pytest.mark.parametrize("damage", ["gone", "text", "folder"])
def test_a_file_that_is_lost_opens_nothing_and_shuts_nobody_out(
    clock: Clock, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = key_file.add("phone")[1]
    keys = Keys(key_file.path(), clock=clock)
    key_file.path().unlink()
    if damage == "text":
        key_file.path().write_text("{")
    elif damage == "folder":
        key_file.path().mkdir()
    clock.pass_()
    with caplog.at_level(logging.ERROR):
        assert code(keys, Headers({})) == "no_key"
        assert keys.name_of(bring(secret)) == "key phone"
    assert "stay in force" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", '{"keys": [{"name": "phone"}]}'])
def test_an_endpoint_does_not_start_on_a_file_that_is_no_list_of_keys(text: str) -> None:
    key_file.path().write_text(text)
    with pytest.raises(ImagoError, match=r"keys\.json is no list of keys"):
        Keys(key_file.path())


def test_every_digest_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [key_file.add(name)[1] for name in ("first", "second", "third")]
    keys = Keys(key_file.path())
    compared: list[str] = []

    def compare(given: str, known: str) -> bool:
        compared.append(known)
        return given == known

    monkeypatch.setattr("imago.serving.keys.hmac.compare_digest", compare)
    for secret in secrets:
        keys.name_of(bring(secret))
    assert code(keys, bring("wrong")) == "wrong_key"
    assert len(compared) == 4 * 3


def test_the_keys_of_the_environment_are_the_endpoints_own_and_a_clients_is_not() -> None:
    phone = key_file.add("phone")[1]
    keys = Keys(key_file.path(), fixed="fixed", probe="probe")
    assert keys.name_of(bring(phone)) == "key phone"
    told = [keys.are_own(headers) for headers in (bring("fixed"), bring("probe"), bring(phone), bring(""), Headers())]
    assert told == [True, True, False, False, False]
    assert not Keys().are_own(bring("probe"))


@pytest.mark.parametrize("name", ["", "-x", "a b", "../x", "x" * 64, "schlüssel", "a\nb"])
def test_a_name_that_would_not_stand_in_a_line_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a key"):
        key_file.add(name)


def test_a_name_stands_for_one_key_and_may_be_given_again_after_it_was_revoked() -> None:
    before = key_file.add("phone")[1]
    with pytest.raises(ConfigError, match="There is a key 'phone'"):
        key_file.add("phone")
    with pytest.raises(ConfigError, match=r"no key 'fone' to revoke\. Did you mean 'phone'"):
        key_file.revoke("fone")
    assert key_file.revoke("phone").revoked is not None
    with pytest.raises(ConfigError, match="no key 'phone' to revoke"):
        key_file.revoke("phone")
    after = key_file.add("phone")[1]
    keys = Keys(key_file.path())
    assert code(keys, bring(before)) == "wrong_key"
    assert keys.name_of(bring(after)) == "key phone"


def test_a_write_that_fails_leaves_the_keys_as_they_were(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    key_file.add("phone")
    before = json.loads((home / "keys.json").read_text())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        key_file.add("farm")
    assert json.loads((home / "keys.json").read_text()) == before
    assert sorted(file.name for file in home.iterdir()) == ["keys.json", "keys.lock"]
