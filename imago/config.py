"""What a person may configure: frozen models, one a section, that refuse what they do not know."""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from imago.errors import ConfigError, did_you_mean

EXPECTATIONS = "expectations"  # lies beside the configurations, and is none
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def _yaml_off(value: Any) -> Any:
    return "off" if value is False else value  # which is what YAML 1.1 makes of a bare off


Severity = Annotated[Literal["refuse", "quarantine", "warn", "off"], BeforeValidator(_yaml_off)]
SplitSeverity = Annotated[Literal["refuse", "warn", "off"], BeforeValidator(_yaml_off)]  # a whole split cannot leave
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Section):
    """Which model is trained, under which name, and where its weights come from."""

    name: str = Field(default="moths", pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")  # and of its deployment
    architecture: str = "mobilenetv3_small_100"  # any name that timm knows
    weights: str = "hub"  # "hub", "none", or a file or folder


class ChecksConfig(Section):
    """What a defect of the data leads to: `refuse` stops the run, `quarantine` leaves the pictures out."""

    undecodable: Severity = "quarantine"  # cannot be read, whole
    extension_mismatch: Severity = "warn"  # its name says another format
    too_many_pixels: Severity = "quarantine"  # more than data.max_pixels
    too_small: Severity = "quarantine"  # a side shorter than data.min_side
    near_blank: Severity = "warn"  # one colour all over
    dark: Severity = "warn"  # nearly black
    bright: Severity = "warn"  # nearly white
    blurred: Severity = "warn"  # without detail
    odd_aspect: Severity = "warn"  # long and narrow
    duplicate_in_split: Severity = "warn"  # the same bytes; all but one of them leave
    duplicate_across_splits: Severity = "quarantine"  # likewise; what is in test stays
    label_conflict: Severity = "quarantine"  # the same bytes under two names
    near_duplicate_in_split: Severity = "warn"  # looks the same; all but one of them leave
    near_duplicate_across_splits: Severity = "quarantine"  # likewise; what is in test stays
    class_missing_in_split: Severity = "warn"  # of a class that has a defect all pictures leave
    class_too_small: Severity = "refuse"  # fewer than data.min_per_class to train on
    class_imbalance: Severity = "warn"  # a tenth of the largest class, or less
    class_name_collision: Severity = "warn"  # names that differ in spelling only
    near_label_conflict: Severity = "warn"  # looks the same, under two names
    unknown_test_class: Severity = "refuse"  # in val or test, but not in train
    split_outlier: SplitSeverity = "warn"  # measures unlike those of train
    version_shift: SplitSeverity = "warn"  # unlike the data that was last accepted


class SyntheticConfig(Section):
    """The embedded moths that are drawn where no source is given."""

    species: int = Field(default=8, ge=2, le=12)  # that is, classes
    per_class_train: int = Field(default=60, ge=1)  # pictures
    per_class_val: int = Field(default=12, ge=1)  # pictures
    per_class_test: int = Field(default=20, ge=1)  # pictures


class DataConfig(Section):
    """Which pictures are read, which of them, and what makes them unfit."""

    source: str | None = None  # what `--data` gives; None: the synthetic moths
    image_size: int = Field(default=224, ge=32, le=1024)  # side of what the model sees, in pixels
    classes: tuple[str, ...] | None = None  # read these only; None: all
    subset: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # which share of each class and split
    limit_per_class: int | None = Field(default=None, ge=1)  # pictures a class and split; None: all
    min_per_class: int = Field(default=5, ge=1)  # accepted training pictures; fewer refuse the data
    max_pixels: int = Field(default=50_000_000, ge=1, le=50_000_000)  # of a picture; a larger one is never decoded
    max_quarantined: Fraction = 0.5  # of the pictures; more refuse the data
    min_side: int = Field(default=16, ge=1)  # of a picture, in pixels
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1  # split off where the source has no such split
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1  # likewise
    turned_copies: bool = False  # take mirror images and quarter turns for near-duplicates, too
    checks: ChecksConfig = ChecksConfig()
    synthetic: SyntheticConfig = SyntheticConfig()


class TrainingConfig(Section):
    """How the classifier is fitted."""

    epochs: int = Field(default=6, ge=0, le=10_000)  # of all of it, after a pretrained one's head; 0: the head alone
    batch_size: int = Field(default=16, ge=1)  # pictures
    micro_batch_size: int | None = Field(default=None, ge=1)  # pictures at a time; None: all on a GPU, else up to 16
    auto_batch_size: bool = False  # take half as many pictures at a time where memory does not do
    learning_rate: float | None = Field(default=None, gt=0)  # None: what suits the weights
    head_learning_rate: float | None = Field(default=None, gt=0)  # None: learning_rate if given, else what suits
    layer_decay: float | None = Field(default=None, gt=0, le=1)  # of the rate, layer by layer down; None: what suits
    weight_decay: float = Field(default=0.05, ge=0)  # AdamW's
    clip_norm: float = Field(default=5.0, ge=0)  # of the gradients; 0: as they are
    ema_decay: float = Field(default=0.0, ge=0, lt=1)  # of a moving average of the weights; 0: none
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)  # of the training loss
    balance: Literal["none", "sampling", "loss"] = "none"  # what makes rare classes count as much as frequent ones
    warmup_head: bool = True  # first fit the head on features computed once, where weights are pretrained
    freeze_batch_norm: bool = False  # keep the pretrained statistics
    augment: bool = True  # random crops, flips, colours
    rand_augment: str | None = None  # timm's, such as rand-m7-n2, in place of the colours
    erasing: Fraction = 0.0  # how often a rectangle of a picture is filled with noise
    mixup: float = Field(default=0.0, ge=0)  # alpha of mixup; 0: none
    cutmix: float = Field(default=0.0, ge=0)  # alpha of CutMix; 0: none
    train_size: int | None = Field(default=None, ge=32, le=1024)  # side while training, in pixels; None: what suits
    full_size_epochs: int = Field(default=0, ge=0)  # the last so many, at data.image_size
    patience: int | None = Field(default=None, ge=1)  # epochs without a better one, after which to stop; None: never
    monitor: Literal["val_accuracy", "val_loss"] = "val_accuracy"  # what patience looks at
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"  # auto: bf16 on one GPU, else 32-true
    reject_coverage: float | None = Field(default=None, gt=0, le=1)  # share to answer; None: 0.95, and all above 0.5
    reject_error: float | None = Field(default=None, ge=0, le=1)  # greatest share of wrong answers; in place of that
    checkpoint_gradients: bool = False  # compute activations twice rather than keep them: less memory, more time
    compile: bool = False  # by torch.compile; pays in long trainings
    num_workers: int | None = Field(default=None, ge=0)  # processes that load pictures; None: up to 8 a GPU, else 0
    devices: int = Field(default=1, ge=1)  # GPUs, or processes on a CPU
    nodes: int = Field(default=1, ge=1)  # machines with so many devices each; a pipeline runs on one
    strategy: str = "auto"  # one of Lightning's that are ddp, started by fork; auto: ddp
    watts_per_core: float = Field(default=12.0, ge=0)  # for the carbon estimate; Green Algorithms' for any CPU
    grid_intensity: float = Field(default=473.0, ge=0)  # g CO2e/kWh, likewise; the world's of 2024, says Ember's review

    @field_validator("reject_error")
    @classmethod
    def _one_aim(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("reject_coverage") is not None:
            raise ValueError("give this or training.reject_coverage, not both")
        return value

    @property
    def processes(self) -> int:
        """How many train together, on all machines."""
        return self.devices * self.nodes


class EvaluationConfig(Section):
    """How the model is judged."""

    bootstrap_samples: int = Field(default=1000, ge=0, le=100_000)  # for the confidence intervals; 0: none
    robustness: bool = True  # measure accuracy under blur, noise, compression, cropping and wrong exposure
    outside: str | None = None  # a source of pictures of other classes, to be withheld; None: drawn moths


class GateConfig(Section):
    """What a challenger must show before it stands for production."""

    min_accuracy: Fraction = 0.5  # on the test pictures
    max_accuracy_drop: Fraction = 0.0  # below the champion's
    max_calibration_error: Fraction = 0.25  # expected calibration error
    min_class_recall: Fraction | None = None  # of the worst class, where chance does not explain it; None: no limit
    max_latency_ms: float | None = Field(default=None, gt=0)  # median of one picture, on one core; None: no limit
    max_model_bytes: int | None = Field(default=None, ge=1)  # of the ONNX graph with its weights; None: no limit
    significance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05  # of exact tests: McNemar's, all classes' recalls
    surely_better: bool = False  # true: a lead over the champion that may be chance does not do
    incomparable: Literal["floor", "refuse"] = "floor"  # of a champion with other classes, or that learned all of test


class DeployConfig(Section):
    """Where and how the promoted model is served."""

    enabled: bool = True  # false: train and promote, serve nothing
    host: str = "127.0.0.1"  # the address listened on; 0.0.0.0: every one of the machine's
    port: int = Field(default=3000, ge=1, le=65535)  # stays from version to version
    hosts: tuple[str, ...] = ()  # names that it is asked for by, beside addresses; (): any, on loopback only localhost
    cors_origins: tuple[str, ...] = ()  # whose pages may ask from a browser, such as https://moths.example
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-For names the client: addresses, networks as 10.0.0.0/24
    workers: int | None = Field(default=None, ge=1)  # processes of one compute thread; None: a core each, at most 4
    max_connections: int = Field(default=1000, ge=1)  # of a worker; beyond, idle ones are closed, or new ones refused
    timeout_seconds: float = Field(default=120, gt=0)  # for a version to start and answer its golden samples
    top_k: int = Field(default=5, ge=1)  # labels in an answer
    max_upload_bytes: int = Field(default=10_000_000, ge=1)  # of a picture
    max_pixels: int = Field(default=50_000_000, ge=1)  # of a picture
    shadow: Fraction = 0.0  # of the requests: what a challenger that was not promoted is asked, too, unseen; 0: none
    reports: bool = False  # true: the endpoint shows the model's reports at /reports, pictures of the data among them

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host.lower()):
                raise ValueError(f"'{host}' is no host's name: write it without scheme and port, as moths.example")
        return tuple(host.lower() for host in hosts)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"'{origin}' is no origin: write scheme, host and port alone, as https://moths.example"
                )
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"'{proxy}' is neither an address, as 10.0.0.5, nor a network, as 10.0.0.0/24"
                ) from error
        return proxies


class InferenceConfig(Section):
    """How a folder of pictures is predicted."""

    batch_size: int = Field(default=32, ge=1)  # pictures
    output: str = "predictions.parquet"  # a path; a relative one is below reports/


class MonitoringConfig(Section):
    """Which requests are looked at, and what counts as drift."""

    window_hours: float = Field(default=24 * 7, gt=0, le=24 * 3660)  # how far back predictions are looked at
    min_predictions: int = Field(default=50, ge=1)  # with fewer there is no verdict
    significance: Annotated[float, Field(ge=0.001, lt=1.0)] = 0.01  # of a false alarm, over all tests together
    min_effect: Fraction = 0.1  # what is smaller is not drift, however sure it is


class SweepConfig(Section):
    """The search over hyperparameters: a space of dotted keys, and a budget of trials."""

    trials: int = Field(default=8, ge=1)  # trainings
    minutes: float | None = Field(default=None, gt=0)  # of CPU time, after which no trial is begun; None: no limit
    prune: bool = True  # from the sixth trial on, give up one that does worse than the median of those before
    space: dict[str, dict[str, Any]] = Field(default_factory=dict)  # `choices`, or `low`, `high` (`log`, `step`) by key


class Config(Section):
    """The whole configuration of a run."""

    seed: int = Field(default=0, ge=0, lt=2**31)  # of splits, weights, batches, synthetic moths
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    deploy: DeployConfig = DeployConfig()
    inference: InferenceConfig = InferenceConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    sweep: SweepConfig = SweepConfig()


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply `dotted.key=value` overrides, whose values are read as YAML.

    A name is looked up in `configs/` and `configs/experiments/`. Raises ConfigError for a file, key or value that
    cannot be used, with the nearest known name.
    """
    path = find_config(name_or_path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Configuration {path} cannot be read: {' '.join(str(error).split())}") from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"Configuration {path} is not a mapping of sections: start it with, say, `seed: 0`.")
    raw = {key: value for key, value in raw.items() if value is not None}  # a section with nothing in it
    for override in overrides:
        _apply(raw, override)
    return build_config(raw, where=str(path), overrides=overrides)


def with_source(config: Config, source: str) -> Config:
    """Return the configuration with other pictures. Raises ConfigError for a name that is not UTF-8."""
    if source != source.encode("utf-8", "replace").decode():
        shown = source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ConfigError(f"The name of the data '{shown}' is not UTF-8: rename it.")
    return config.model_copy(update={"data": config.data.model_copy(update={"source": source})})


def build_config(raw: dict[str, Any], *, where: str, overrides: Sequence[str] = ()) -> Config:
    """Check a nested mapping into a Config; the ConfigError names `where` it is from, or the override that is wrong."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        names = {one: f"{one.partition('=')[0]}." for one in overrides}
        wrong = [one for one, name in names.items() if f"{key}.".startswith(name) or name.startswith(f"{key}.")]
        set_key = wrong[-1].partition("=")[0] if wrong else None  # whose whole name has the nearer neighbours
        raise ConfigError(_explain(error, f"--set {wrong[-1]}" if wrong else where, set_key)) from error


def find_config(name_or_path: str) -> Path:
    """Return the file that a name in `configs/` or a path stands for, or raise ConfigError with the nearest names."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    named = {file.stem: file for folder in (CONFIGS, CONFIGS / "experiments") for file in sorted(folder.glob("*.yaml"))}
    named.pop(EXPECTATIONS, None)
    if name_or_path in named:
        return named[name_or_path]
    hint = did_you_mean(name_or_path, named)
    raise ConfigError(f"No configuration '{name_or_path}': it is neither a file nor one of {sorted(named)}.{hint}")


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Return every dotted key of the configuration, such as `training.epochs`."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys.extend(known_keys(field.annotation, f"{prefix}{name}."))
    return keys


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"'--set {override}' is not of the form dotted.key=value.")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"The value in '--set {override}' is not YAML.") from error
    *sections, last = key.split(".")
    section: Any = raw
    for name in sections:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
        if section is None:
            break
    if not isinstance(section, dict):
        raise ConfigError(f"Unknown key '{key}' in '--set {override}'.{did_you_mean(key, known_keys())}")
    section[last] = value


def _explain(error: ValidationError, where: str, set_key: str | None = None) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Unknown key '{key}' in {where}.{did_you_mean(set_key or key, known_keys())}"
    if first["type"] == "string_pattern_mismatch":
        allowed = "lower-case letters, digits, '.', '_' and '-', beginning and ending with a letter or digit"
        return f"{key}: {first['input']!r} cannot be it, in {where}: use {allowed}."
    return f"{key}: {first['msg']} (it is {first['input']!r}), in {where}."
