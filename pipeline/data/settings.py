"""The settings of the data: which sets, in which order, and how they are read."""

from dataclasses import dataclass, field

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.damage import Limits
from pipeline.data.loading.loader import Loading
from pipeline.errors import Range, UserError, check_ranges, unknown_name

LABELS = ("", "index", "real")
RANGES = {
    **dict.fromkeys(("classes", "image_size", "lanes", "window"), Range(1, 1_000_000)),
    **dict.fromkeys(("train_images", "validation_images"), Range(0, 1 << 40)),
}
READERS = ("indexed", "webdataset")


@dataclass(frozen=True)
class DataConfig:
    name: str = "imagenet"  # as in tables
    root: str = ""  # where the shards lie; their fingerprint says what they are
    classes: int = 1000  # of the network too
    image_size: int = 224  # of the network and of all crops too
    train: str = "train"  # the split to learn from
    validation: str = "validation"  # the split to be measured on
    class_names: tuple[str, ...] = ()  # that the shards must have, in this order; none: any
    train_images: int = 0  # that their split must have; 0 = any number
    validation_images: int = 0  # likewise
    # Which answers are right, in evaluation: "" the split's labels, "index" classes whose names are the
    # network's outputs, "real" ImageNet's reassessed labels, where an image may have several.
    labels: str = ""
    # "webdataset" streams the tars through that library: no exact order, and no going on within an epoch.
    reader: str = "indexed"
    stage: str = ""  # a folder on the node's own disk: splits are copied there once, and read from there
    order: str = "global"  # or "lane", for file systems that dislike random access
    lanes: int = 64  # of order=lane: parts of the split that are each read in order
    window: int = 4  # of order=lane: shards of a lane whose samples are mixed
    augmentation: Augmentation = field(default_factory=Augmentation)
    loading: Loading = field(default_factory=Loading)
    damage: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, "data")
        if self.class_names and len(self.class_names) != self.classes:
            raise UserError(f"data.class_names has {len(self.class_names)} names of {self.classes} classes")
        if self.labels not in LABELS:
            raise unknown_name("data.labels", self.labels, LABELS)
        if self.reader not in READERS:
            raise unknown_name("data.reader", self.reader, READERS)
