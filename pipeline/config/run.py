"""A run's config: dataclasses, and the file that holds them. Nothing here needs torch."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline.config.birth import filled
from pipeline.config.machine import About, ClusterConfig, EngineConfig, LoggingConfig, Paths
from pipeline.config.science import ModelConfig, Recipe, network_kind
from pipeline.config.typed import build, flattened, listed, nested, typed
from pipeline.data.settings import DataConfig
from pipeline.errors import UserError, unknown_name
from tnt.config import PyramidConfig, TNTConfig
from tnt.untrusted.reading import MOST_DEPTH, other_than, read_text

SCIENCE = ("model", "data", "recipe", "seed", "scale", "precision")  # they decide the numbers
MOST_BYTES = 1 << 20  # of a config's file
CHANNELS = 3  # of every image, whatever its file holds
PRECISIONS = ("bf16", "fp32")
# A network's settings that other sections say: each is given once, there.
SHARED = {"image_size": "data.image_size", "classes": "data.classes", "drop_path": "recipe.drop_path"}


@dataclass(frozen=True)
class RunConfig:
    """The first six are SCIENCE; the rest say where and how fast."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0  # of everything random
    scale: str = "paper"  # or "demo": digits instead of any data, small networks, a short recipe
    precision: str = "bf16"  # of the arithmetic; weights, their average and the optimizer are fp32
    engine: EngineConfig = field(default_factory=EngineConfig)
    paths: Paths = field(default_factory=Paths)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must not be negative")
        network, augmentation = self.model.network, self.data.augmentation
        if isinstance(network, TNTConfig | PyramidConfig) and network.channels != CHANNELS:
            raise UserError(f"model.channels is {network.channels}; images have {CHANNELS}, RGB")
        if self.recipe.drop_path and "drop_path" not in {each.name for each in dataclasses.fields(network)}:
            raise UserError(f"{self.model.name} has no setting drop_path; train it with recipe.drop_path=0")
        readers = {f"model.{name}": (getattr(network, name), source) for name, source in SHARED.items()}
        readers["data.augmentation.image_size"] = augmentation.image_size, "data.image_size"
        for name, (value, source) in readers.items():
            wanted = attrgetter(source)(self)
            if value != wanted:
                raise UserError(f"{name} is {value} but {source} is {wanted}; give {source} alone")
        if self.recipe.optimizer == "lamb" and self.engine.zero_stage:
            raise UserError("recipe.optimizer=lamb scales whole layers, which ZeRO cuts: engine.zero_stage=0")
        if self.cluster.timeout <= self.data.loading.timeout:
            raise UserError(
                f"cluster.timeout is {self.cluster.timeout} seconds; it must be above data.loading.timeout, "
                f"{self.data.loading.timeout}: a rank that waits for a worker is not gone"
            )


def plain(config: RunConfig) -> dict[str, Any]:
    """Nested dicts and lists, as in config.yaml; `from_plain` takes them back."""
    values = listed(dataclasses.asdict(config))
    values["model"] = {"name": config.model.name} | values["model"]["network"]
    return values


def from_plain(values: dict[str, Any]) -> RunConfig:
    """The config that nested values describe; a missing, unknown or mistyped one is refused by name."""
    for section in ("model", "data"):
        if not isinstance(values.get(section, {}), dict):
            raise UserError(f"{section} is {values[section]!r}, no section")
    model = values.get("model", {})
    settings = {key: value for key, value in model.items() if key != "name"}
    name, network = model.get("name", ""), build(network_kind(model), settings, "model")
    others = {key: value for key, value in values.items() if key != "model"}
    return build(RunConfig, others, "", model=ModelConfig(typed(str, name, "model.name"), network))


def take(values: dict[str, Any], others: dict[str, Any], names: Iterable[str]) -> None:
    """Set in nested values what others have under these names, as engine or data.root."""
    for name in names:
        *sections, last = name.split(".")
        ours, theirs = values, others
        for section in sections:
            ours, theirs = ours[section], theirs[section]
        ours[last] = theirs[last]


def write(config: RunConfig, path: Path) -> None:
    from pipeline.files import publish_bytes

    publish_bytes(path, yaml_text(plain(config)).encode())


def read(path: Path) -> RunConfig:
    """A config as this code or an earlier one wrote it."""
    values = read_plain(path)
    if problem := other_than(values, dict.fromkeys(SCIENCE, Any)):
        raise UserError(f"{path} holds no config: {problem}")
    try:
        return from_plain(nested(filled(values, dict(flattened(plain(RunConfig()))))))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_plain(path: Path) -> Any:
    """The values of a file of YAML; references in it are refused: a few could stand for a million lines."""
    import yaml

    try:
        text = read_text(path, MOST_BYTES)
    except FileNotFoundError:
        raise UserError(f"there is no config at {path}") from None
    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MOST_DEPTH:
                raise yaml.YAMLError(f"it holds a reference, or is nested more than {MOST_DEPTH} deep")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # the latter of a number or a date
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def yaml_text(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
