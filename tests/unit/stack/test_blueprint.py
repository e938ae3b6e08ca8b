"""Blueprints of stacks: what is read from a file, and what the environment fills in."""

import pytest

from imago.errors import ConfigError
from stack import blueprint


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path))
    for name in ("IMAGO_ALERT_WEBHOOK", "IMAGO_IMAGE", "IMAGO_BUCKET", "IMAGO_KUBERNETES_CONTEXT", "IMAGO_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


def test_mlflow_is_kept_in_the_home(tmp_path):
    tracker = blueprint.load("local").component("experiment_tracker")
    assert tracker.config == {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}


def test_the_alerter_is_left_out_where_its_address_is_not_set(monkeypatch):
    assert blueprint.load("local").component("alerter") is None
    monkeypatch.setenv("IMAGO_ALERT_WEBHOOK", "https://chat.example/hook")
    alerter = blueprint.load("local").component("alerter")
    assert alerter.config == {}
    assert alerter.secret == {"url": "https://chat.example/hook"}


def test_a_default_is_used_only_where_the_variable_is_not_set(monkeypatch):
    assert blueprint.load("docker").image == "imago:latest"
    monkeypatch.setenv("IMAGO_IMAGE", "registry.example/imago:2")
    assert blueprint.load("docker").image == "registry.example/imago:2"


def test_variables_that_are_not_set_are_named(monkeypatch):
    monkeypatch.setenv("IMAGO_REGISTRY", "registry.example")
    assert blueprint.load("kubernetes").missing == ("IMAGO_KUBERNETES_CONTEXT", "IMAGO_BUCKET", "IMAGO_MLFLOW")


def test_a_stack_is_found_by_its_name_in_zenml():
    assert blueprint.by_stack("imago-docker").name == "docker"
    assert blueprint.by_stack("default") is None


def test_components_that_stacks_share_are_the_same_in_each(monkeypatch):
    monkeypatch.setenv("IMAGO_ALERT_WEBHOOK", "https://chat.example/hook")
    seen: dict[tuple[str, str], blueprint.Component] = {}
    for name in blueprint.names():
        for part in blueprint.load(name).components:
            assert seen.setdefault((part.type, part.name), part) == part


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stack: mine\ncomponents: {}\nimages: x\n", "Unknown key 'images'"),
        ("stack: mine\ncomponents: {orchestrator: {name: a, flavour: local}}\n", "Unknown key 'orchestrator.flavour'"),
        ("stack: mine\n", "cannot be read: 'components'"),
        ("stack: [\n", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(monkeypatch, tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(blueprint, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=message):
        blueprint.load("mine")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'kubernetes'"):
        blueprint.load("kubernets")
