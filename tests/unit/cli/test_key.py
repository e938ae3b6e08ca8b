"""Keys are given out and revoked from the command line, and shown once."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.deployment import deployment
from imago.errors import ConfigError
from imago.serving import key_file
from imago.serving.keys import digest_of


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(deployment, ["key", *arguments], catch_exceptions=False)


def test_the_key_alone_is_on_standard_output_and_nowhere_else_later() -> None:
    added = run("add", "phone")
    secret = added.stdout.strip()
    assert digest_of(secret) == key_file.listed()[0].digest
    assert "from now on nobody is answered without one" in added.stderr
    assert "from now on" not in run("add", "farm").stderr
    listed = run("list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["phone", "farm"]
    assert secret not in listed


def test_a_revoked_key_is_listed_as_such() -> None:
    assert run("list").stdout == "There is no key.\n"
    run("add", "phone")
    assert run("revoke", "phone").stdout == "'phone' is revoked.\n"
    assert ", revoked " in run("list").stdout


def test_as_json_there_is_one_object_and_no_digest() -> None:
    added = json.loads(run("add", "phone", "--json").stdout)
    assert set(added) == {"name", "key", "created"}
    assert added["key"].startswith("imago_")
    revoked = json.loads(run("revoke", "phone", "--json").stdout)
    assert set(revoked) == {"name", "created", "revoked"}
    assert json.loads(run("list", "--json").stdout) == {"keys": [revoked]}


def test_what_is_not_there_cannot_be_revoked() -> None:
    with pytest.raises(ConfigError, match="no key 'phone' to revoke"):
        run("revoke", "phone")
