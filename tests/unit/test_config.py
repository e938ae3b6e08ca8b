"""Configuration: what is known is taken, what is unknown is refused with the nearest name."""

from pathlib import Path

import pytest

from imago.config import Config, find_config, known_keys, load_config
from imago.errors import ConfigError


def test_overrides_are_read_as_yaml_and_reach_their_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("training: {epochs: 2}\n", encoding="utf-8")
    config = load_config(str(file), ["training.batch_size=8", "data.classes=[a, b]", "model.weights=none"])
    assert (config.training.epochs, config.training.batch_size) == (2, 8)
    assert config.data.classes == ("a", "b")
    assert config.model.weights == "none"


@pytest.mark.parametrize(
    ("override", "nearest"),
    [("training.epoch=3", "training.epochs"), ("trainig.epochs=3", "training.epochs"), ("seeds=1", "seed")],
)
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path, override: str, nearest: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"Unknown key.*'{nearest}'"):
        load_config(str(file), [override])


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {imagesize: 64}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data\.imagesize.*mine\.yaml.*data\.image_size"):
        load_config(str(file))


@pytest.mark.parametrize("override", ["training.epochs=-1", "data.val_fraction=0.9", "deploy.port=99999", "seed=x"])
def test_a_value_out_of_range_names_its_key(tmp_path: Path, override: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load_config(str(file), [override])


@pytest.mark.parametrize("text", ["- a list", "just text", "seed: [unclosed"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(str(file))


def test_an_unknown_configuration_offers_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="'training'"):
        find_config("trainning")


def test_a_bare_off_is_the_severity_off() -> None:
    assert load_config("training", ["data.checks.blurred=off"]).data.checks.blurred == "off"


def test_a_section_with_nothing_in_it_is_as_if_left_out(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\ndata:\n", encoding="utf-8")
    config = load_config(str(file), ["data.source=moths"])
    assert (config.seed, config.data.source) == (3, "moths")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.weight_decay"):
        load_config("training", [f"training.weight_decay={value}"])


@pytest.mark.parametrize("origin", ["*", "null", "https://a.example/", "a.example", "https://A.example", "https://a b"])
def test_what_is_no_origin_is_named(origin: str) -> None:
    with pytest.raises(ConfigError, match="is no origin: write scheme, host and port alone"):
        load_config("training", [f"deploy.cors_origins=['https://moths.example:8443', '{origin}']"])


@pytest.mark.parametrize("host", ["https://moths.example", "moths.example:443", "*.example", "a b", ""])
def test_what_is_no_hosts_name_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match="is no host's name: write it without scheme and port"):
        load_config("training", [f"deploy.hosts=['moths.example', '{host}']"])


def test_a_hosts_name_is_the_same_in_capitals() -> None:
    assert load_config("training", ["deploy.hosts=[Moths.Example]"]).deploy.hosts == ("moths.example",)


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.5/24", "10.0.0.5:80", ""])
def test_a_proxy_that_is_no_address_is_named(proxy: str) -> None:
    with pytest.raises(ConfigError, match="is neither an address, as"):
        load_config("training", [f"deploy.trusted_proxies=['10.0.0.0/24', '{proxy}']"])


def test_every_shipped_configuration_is_sound() -> None:
    root = find_config("training").parent
    for file in [*root.glob("*.yaml"), *root.glob("experiments/*.yaml")]:
        if file.stem != "expectations":
            load_config(str(file))


def test_the_demo_says_that_it_has_no_weights() -> None:
    assert load_config("demo").model.weights == "none"


def test_one_aim_of_withholding_is_taken_and_two_are_refused() -> None:
    config = load_config("training", ["training.reject_error=0.02"])
    assert (config.training.reject_coverage, config.training.reject_error) == (None, 0.02)
    assert Config.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ConfigError, match=r"training\.reject_error: .*not both"):
        load_config("training", ["training.reject_coverage=0.9", "training.reject_error=0.02"])


def test_keys_that_stay() -> None:
    kept = {
        "model.architecture", "model.weights", "training.epochs", "training.batch_size", "data.image_size", "seed",
        "deploy.enabled", "deploy.port",
    }  # fmt: skip
    assert kept <= set(known_keys())
