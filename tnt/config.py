"""What a TNT is: every switch that the paper's tables vary, and the published variants."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

FORMS = ("official", "legacy")
SE_PLACES = ("none", "inner", "outer", "both")
# Far beyond any network that was ever trained: above it, a number is a mistake that would cost minutes.
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
class TNTConfig:
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
        _refuse_unknown_fields(changes)
        fields = dataclasses.asdict(self)
        if "word_dim" not in changes and self.words * self.c == self.patch_dim:
            fields["word_dim"] = None
        return TNTConfig(**(fields | changes))

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = type(field.default) if field.default is not None else int
            if value is None and field.default is None:
                continue
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not kind:
                raise ValueError(f"{field.name}={value!r} is {_article(type(value))}, not {_article(kind)}")

    def _check_choices(self) -> None:
        _check_choice("form", self.form, FORMS)
        _check_choice("se", self.se, SE_PLACES)
        for name, most in MOST.items():
            least = 0 if name == "classes" else 1  # 0: no head
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name}={value} must lie in {least} to {most}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")
        if self.image_size % self.patch_size:
            near = max(1, round(self.image_size / self.patch_size)) * self.patch_size
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}; nearest: {near}"
            )
        if self.patch_size % self.word_edge:
            raise ValueError(
                f"word_edge={self.word_edge} does not divide patch_size={self.patch_size}; "
                f"valid: {_listed(_divisors(self.patch_size))}"
            )


def from_fields(values: dict[str, Any]) -> TNTConfig:
    """The network that a file describes; a field that is none is refused by name."""
    _refuse_unknown_fields(values)
    return TNTConfig(**values)


def _refuse_unknown_fields(names: dict[str, Any]) -> None:
    for name in names:
        _check_choice("field", name, tuple(field.name for field in dataclasses.fields(TNTConfig)))


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
    return {int: "an integer", float: "a number", str: "a string", bool: "true or false"}.get(
        kind, f"a {kind.__name__}"
    )


# Table 1, and TNT-Ti of the authors' later version. `_legacy` is the form of timm's first port.
VARIANTS: dict[str, TNTConfig] = {
    "tnt_ti": TNTConfig(patch_dim=192, outer_heads=3, inner_heads=2),
    "tnt_s": TNTConfig(patch_dim=384, outer_heads=6, inner_heads=4),
    "tnt_b": TNTConfig(patch_dim=640, outer_heads=10, inner_heads=4),
    "tnt_s_legacy": TNTConfig(patch_dim=384, outer_heads=6, inner_heads=4, form="legacy"),
    "tnt_b_legacy": TNTConfig(patch_dim=640, outer_heads=10, inner_heads=4, form="legacy"),
}


def get_config(name: str, **overrides: Any) -> TNTConfig:
    """The config of a published variant, with some fields changed."""
    _check_choice("model", name, tuple(VARIANTS))
    return VARIANTS[name].replace(**overrides)
