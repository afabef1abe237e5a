"""What a TNT is: every switch that the paper's tables vary, and the published variants; and a PyramidTNT."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

FORMS = ("official", "legacy")
SE_PLACES = ("none", "inner", "outer", "both")
# Far beyond any network that was ever trained: above it, a number is a mistake that would cost minutes.
PYRAMID = "pyramid"  # in place of a form: the other family
MOST = {
    "image_size": 4096,
    "patch_size": 1024,
    "word_edge": 1024,
    "depth": 1000,
    "patch_dim": 1 << 16,
    "word_dim": 1 << 16,
    "outer_heads": 1 << 16,
    "inner_heads": 1 << 16,
    "mlp_ratio": 1000,
    "channels": 1000,
    "classes": 1_000_000,
}


@dataclass(frozen=True)
class NetworkConfig:
    """What the two families have in common: every field is checked, and none is taken that is unknown."""

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = type(field.default) if field.default is not None else int
            if value is None and field.default is None:
                continue
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif kind is tuple and type(value) is list:  # as files have it
                object.__setattr__(self, field.name, tuple(value))
            elif type(value) is not kind:
                raise ValueError(f"{field.name}={value!r} is {_article(type(value))}, not {_article(kind)}")

    def _check_ranges(self) -> None:
        for name, most in MOST.items():
            least = 0 if name == "classes" else 1  # 0: no head
            value = getattr(self, name, None)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name}={value} must lie in {least} to {most}")
        drop_path = getattr(self, "drop_path", 0.0)
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} must lie in [0, 1)")


@dataclass(frozen=True)
class TNTConfig(NetworkConfig):
    """One network. The letters are the paper's: n patches of m words, widths d (patch) and c (word).

    `word_dim=None` keeps the width of a whole patch of words, m·c, equal to d: this is so in every variant
    of the paper and is what makes the word edge p′ of Table 7 a fair comparison.
    """

    form: str = "official"  # official or legacy: which of the two published networks of that name
    image_size: int = 224  # the edge of an image, in pixels
    patch_size: int = 16  # the edge of a patch, in pixels
    word_edge: int = 4  # p′: a word is word_edge × word_edge pixels; it is also the stride of the stem
    depth: int = 12  # blocks, each an inner and an outer transformer
    patch_dim: int = 384  # d, the width of a patch
    word_dim: int | None = None  # c, the width of a word; None: d divided by the words of a patch
    outer_heads: int = 6  # of the attention between patches
    inner_heads: int = 4  # of the attention between the words of a patch
    mlp_ratio: int = 4  # r, the width of the hidden layers in widths of their input
    patch_position: bool = True  # whether patches have position encodings, E_patch of Eq. 12
    word_position: bool = True  # whether words have position encodings, E_pixel of Eq. 13
    se: str = "none"  # where §2.4's gate sits; the paper's TNT-S+SE is "outer"
    channels: int = 3  # of an image
    classes: int = 1000  # 0: no head, the class token's embedding comes out
    drop_path: float = 0.0  # rate of the last block; it grows linearly from 0 at the first

    def __post_init__(self) -> None:
        self._check_types()
        self._check_choices()
        if self.word_dim is None:
            object.__setattr__(
                self, "word_dim", _exact(self.patch_dim, self.words, "patch_dim", "words a patch")
            )
        _check_heads("inner_heads", self.inner_heads, "word_dim", self.c)
        _check_heads("outer_heads", self.outer_heads, "patch_dim", self.patch_dim)

    @property
    def words(self) -> int:
        """m, the words of a patch."""
        return (self.patch_size // self.word_edge) ** 2

    @property
    def patches(self) -> int:
        """n, the patches of an image of `image_size`."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def c(self) -> int:
        """The word's width, known once the config is made."""
        assert self.word_dim is not None
        return self.word_dim

    def replace(self, **changes: Any) -> TNTConfig:
        """The same network with some fields changed; m·c keeps its ratio to d unless `word_dim` is given."""
        _refuse_unknown_fields(TNTConfig, changes)
        fields = dataclasses.asdict(self)
        if "word_dim" not in changes and self.words * self.c == self.patch_dim:
            fields["word_dim"] = None
        return TNTConfig(**(fields | changes))

    def _check_choices(self) -> None:
        _check_choice("form", self.form, FORMS)
        _check_choice("se", self.se, SE_PLACES)
        self._check_ranges()
        if self.image_size % self.patch_size:
            near = nearest_multiple(self.image_size, self.patch_size)
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}; nearest: {near}"
            )
        if self.patch_size % self.word_edge:
            raise ValueError(
                f"word_edge={self.word_edge} does not divide patch_size={self.patch_size}; "
                f"valid: {_listed(_divisors(self.patch_size))}"
            )


@dataclass(frozen=True)
class StageConfig:
    """A stage of a pyramid at the image size of its network."""

    blocks: int
    with_words: int  # of the blocks, the first ones: they have an inner transformer
    edge: int  # √n, the patches along an edge of the image
    d: int  # the width of a patch
    c: int  # the width of a word
    outer_heads: int
    inner_heads: int
    pooling: int  # the edge of the squares of patches that stand together as one key and value

    @property
    def keys(self) -> int:
        """Of the outer attention, along an edge."""
        return self.edge // self.pooling


@dataclass(frozen=True)
class PyramidConfig(NetworkConfig):
    """One PyramidTNT (arXiv 2201.00978): four stages, each with a quarter of the patches of the one before.

    Widths and heads are those of the first stage; they double twice, and the fourth stage has the third's. A
    patch has 16 words in every stage.
    """

    form: str = PYRAMID  # the family
    image_size: int = 256  # the edge of an image, in pixels
    depths: tuple[int, ...] = (2, 8, 4, 2)  # blocks of each stage of a PyramidTNT, which has no depth
    patch_dim: int = 128  # d, the width of a patch of 8 pixels
    word_dim: int = 8  # c, the width of a word of 2 pixels
    outer_heads: int = 4  # of the attention between patches
    inner_heads: int = 2  # of the attention between the words of a patch
    mlp_ratio: int = 4  # r, the width of the hidden layers in widths of their input
    channels: int = 3  # of an image
    classes: int = 1000  # 0: no head, the mean of the patches comes out
    drop_path: float = 0.0  # rate of the last block; it grows linearly from 0 at the first

    words = 16  # m, of a patch
    patch_size = 8  # of the first stage's patches, in pixels
    multiple = 64  # of pixels, of an image's edges: a patch of the last stage
    growth = (1, 2, 4, 4)  # of widths and heads
    pooling = (4, 2, 1, 1)

    def __post_init__(self) -> None:
        self._check_types()
        _check_choice("form", self.form, (PYRAMID,))
        self._check_ranges()
        if len(self.depths) != len(self.growth) or not all(
            type(depth) is int and 1 <= depth <= MOST["depth"] for depth in self.depths
        ):
            raise ValueError(f"depths={list(self.depths)} must be 4 whole numbers of 1 to {MOST['depth']}")
        if self.image_size % self.multiple:
            near = nearest_multiple(self.image_size, self.multiple)
            raise ValueError(
                f"image_size={self.image_size} is no multiple of {self.multiple} pixels; nearest: {near}"
            )
        _check_heads("inner_heads", self.inner_heads, "word_dim", self.word_dim)
        _check_heads("outer_heads", self.outer_heads, "patch_dim", self.patch_dim)

    @property
    def depth(self) -> int:
        """Of the features that can be taken: stages."""
        return len(self.depths)

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        edge = self.image_size // self.patch_size
        return tuple(
            StageConfig(
                blocks=depth,
                with_words=2 if depth > 6 else 1,
                edge=edge >> stage,
                d=times * self.patch_dim,
                c=times * self.word_dim,
                outer_heads=times * self.outer_heads,
                inner_heads=times * self.inner_heads,
                pooling=pooling,
            )
            for stage, (depth, times, pooling) in enumerate(
                zip(self.depths, self.growth, self.pooling, strict=True)
            )
        )

    def replace(self, **changes: Any) -> PyramidConfig:
        """The same network with some fields changed."""
        _refuse_unknown_fields(PyramidConfig, changes)
        return dataclasses.replace(self, **changes)


def from_fields(values: dict[str, Any]) -> TNTConfig | PyramidConfig:
    """The network that a file describes; a field that is none is refused by name."""
    kind = PyramidConfig if values.get("form") == PYRAMID else TNTConfig
    _refuse_unknown_fields(kind, values)
    return kind(**values)


def _refuse_unknown_fields(kind: type[NetworkConfig], names: dict[str, Any]) -> None:
    for name in names:
        _check_choice("field", name, tuple(field.name for field in dataclasses.fields(kind)))


def nearest_multiple(size: int, edge: int) -> int:
    return max(1, round(size / edge)) * edge


def _check_choice(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        near = get_close_matches(str(value), valid, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown {what} {value!r}{hint}; valid: {_listed(valid)}")


def _check_heads(name: str, heads: int, width_name: str, width: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(
            f"{name}={heads} does not divide {width_name}={width}; valid: {_listed(_divisors(width))}"
        )


def _exact(whole: int, part: int, whole_name: str, part_name: str) -> int:
    if whole % part:
        raise ValueError(f"{whole_name}={whole} is not a multiple of the {part} {part_name}; give word_dim")
    return whole // part


def _divisors(number: int) -> list[int]:
    return [k for k in range(1, number + 1) if number % k == 0]


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _article(kind: type) -> str:
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", tuple: "a list"}
    return names.get(kind, f"a {kind.__name__}")


# Table 1, and TNT-Ti of the authors' later version. `_legacy` is the form of timm's first port.
VARIANTS: dict[str, TNTConfig] = {
    "tnt_ti": TNTConfig(patch_dim=192, outer_heads=3, inner_heads=2),
    "tnt_s": TNTConfig(patch_dim=384, outer_heads=6, inner_heads=4),
    "tnt_b": TNTConfig(patch_dim=640, outer_heads=10, inner_heads=4),
    "tnt_s_legacy": TNTConfig(patch_dim=384, outer_heads=6, inner_heads=4, form="legacy"),
    "tnt_b_legacy": TNTConfig(patch_dim=640, outer_heads=10, inner_heads=4, form="legacy"),
}

# The authors' code (huawei-noah/Efficient-AI-Backbones), pyramid_tnt.py.
PYRAMIDS: dict[str, PyramidConfig] = {
    "pyramid_tnt_ti": PyramidConfig(
        image_size=192, depths=(2, 6, 3, 2), patch_dim=80, word_dim=5, outer_heads=2, inner_heads=1
    ),
    "pyramid_tnt_s": PyramidConfig(),
    "pyramid_tnt_m": PyramidConfig(depths=(2, 8, 6, 2), patch_dim=192, word_dim=12),
    "pyramid_tnt_b": PyramidConfig(depths=(2, 10, 6, 2), patch_dim=256, word_dim=16),
}
NETWORKS: dict[str, TNTConfig | PyramidConfig] = VARIANTS | PYRAMIDS


def get_config(name: str, **overrides: Any) -> Any:
    """The TNTConfig or PyramidConfig of a published variant, with some fields changed."""
    _check_choice("model", name, tuple(NETWORKS))
    return NETWORKS[name].replace(**overrides)
