"""Versions that ask for a key, deployed and started."""

from pathlib import Path

import httpx
import psutil
import pytest

from imago.errors import ConfigError, DeploymentFailed
from imago.serving import deployment, key_file

TINY_WORKER = Path(__file__).with_name("tiny_worker.py")


def test_an_endpoint_that_asks_for_a_key_is_not_started_without_one(house, monkeypatch):
    monkeypatch.setenv("IMAGO_API_KEY", "open sesame")
    monkeypatch.setenv("IMAGO_RATE_LIMIT", "7")
    pids = house.deploy(1).pids
    assert house.deploy(1).pids == pids
    assert b"sesame" not in (deployment.folder() / "moths.json").read_bytes()
    monkeypatch.delenv("IMAGO_API_KEY")
    monkeypatch.delenv("IMAGO_RATE_LIMIT")
    assert house.deploy(1).pids == pids
    with pytest.raises(DeploymentFailed, match="set IMAGO_API_KEY to it or to a new one"):
        house.deploy(2)
    house.moths.stop()
    with pytest.raises(DeploymentFailed, match="set IMAGO_API_KEY"):
        house.moths.start()
    monkeypatch.setenv("IMAGO_API_KEY", "")
    opened = house.moths.start()
    environment = psutil.Process(opened.pids[1]).environ()
    assert (environment["IMAGO_API_KEY"], environment["IMAGO_RATE_LIMIT"]) == ("", "7")


def test_another_key_is_a_change_that_is_deployed(house, monkeypatch):
    pids = house.deploy(1).pids
    monkeypatch.setenv("IMAGO_API_KEY", "open sesame")
    keyed = house.deploy(1).pids
    monkeypatch.setenv("IMAGO_API_KEY", "open barley")
    assert len({pids, keyed, house.deploy(1).pids}) == 3


def test_start_guards_what_serves_as_it_is_asked_to_now(house, monkeypatch):
    pids = house.deploy(1).pids
    assert house.moths.start().pids == pids
    monkeypatch.setenv("IMAGO_RATE_LIMIT", "7")
    guarded = house.moths.start()
    assert set(guarded.pids).isdisjoint(pids)
    assert psutil.Process(guarded.pids[1]).environ()["IMAGO_RATE_LIMIT"] == "7"


def test_a_limit_that_is_none_is_refused_before_anything_is_started(house, monkeypatch):
    pids = house.deploy(1).pids
    monkeypatch.setenv("IMAGO_RATE_LIMIT", "abc")
    with pytest.raises(ConfigError, match="IMAGO_RATE_LIMIT is 'abc'"):
        house.moths.require_port(house.config)
    with pytest.raises(ConfigError, match="IMAGO_RATE_LIMIT is 'abc'"):
        house.deploy(2)
    assert house.moths.status().pids == pids


def test_keys_with_names_are_handed_to_a_version_and_its_probes_get_in(house):
    key_file.add("phone")
    house.behaviour["moths:1"] = "keyed"
    pids = house.deploy(1).pids
    environment = psutil.Process(pids[1]).environ()
    assert environment["IMAGO_KEYS"] == str(key_file.path())
    assert httpx.get(f"{house.url}/info").status_code == 401
    key_file.add("farm")
    assert house.deploy(1).pids == pids  # it has noticed by itself


def test_a_version_that_would_answer_without_a_key_is_not_put_in_the_place_of_one_that_asks(house):
    key_file.add("phone")
    house.behaviour["moths:1"] = "keyed"
    house.deploy(1)
    with pytest.raises(DeploymentFailed, match=r"moths:1 still serves: it does not ask for the keys of .*keys\.json"):
        house.deploy(2)
    assert httpx.get(f"{house.url}/info").status_code == 401


def test_keys_that_are_gone_do_not_open_an_endpoint(house, monkeypatch):
    key_file.add("phone")
    house.behaviour["moths:1"] = "keyed"
    house.deploy(1)
    house.moths.stop()
    key_file.path().unlink()
    with pytest.raises(DeploymentFailed, match=r"keys\.json, which is gone: put it back"):
        house.moths.start()
    monkeypatch.setenv("IMAGO_API_KEY", "")
    assert house.moths.start().running


def test_whoever_lets_everybody_in_is_warned(house, monkeypatch):
    house.deploy(1)
    assert not [line for line in house.lines if line.startswith("warning")]
    house.deploy(1, host="0.0.0.0")
    (line,) = [line for line in house.lines if line.startswith("warning")]
    assert "listens on 0.0.0.0, beyond this machine" in line
    monkeypatch.setenv("IMAGO_API_KEY", "open sesame")
    house.deploy(1, host="0.0.0.0")
    assert len([line for line in house.lines if line.startswith("warning")]) == 1
