import dataclasses

import pytest

from tnt.config import VARIANTS, TNTConfig, get_config


def test_variants_are_table_1():
    small, base = get_config("tnt_s"), get_config("tnt_b")
    assert (small.depth, small.c, small.inner_heads, small.patch_dim, small.outer_heads) == (
        12,
        24,
        4,
        384,
        6,
    )
    assert (base.depth, base.c, base.inner_heads, base.patch_dim, base.outer_heads) == (12, 40, 4, 640, 10)
    assert (small.words, small.patches, small.mlp_ratio) == (16, 196, 4)


@pytest.mark.parametrize(("word_edge", "words", "c"), [(2, 64, 6), (4, 16, 24), (8, 4, 96)])
def test_the_word_edge_holds_the_width_of_a_patch_of_words(word_edge, words, c):
    config = get_config("tnt_s", word_edge=word_edge, inner_heads=2)
    assert (config.words, config.c) == (words, c)
    assert config == get_config("tnt_s").replace(word_edge=word_edge, inner_heads=2)


def test_a_given_word_width_is_kept_when_the_word_edge_changes():
    config = get_config("tnt_s", word_dim=12, inner_heads=2)
    assert config.replace(word_edge=2).c == 12


def test_equal_networks_have_equal_configs_however_they_were_asked_for():
    assert (
        get_config("tnt_s")
        == get_config("tnt_s", word_dim=24)
        == TNTConfig(**dataclasses.asdict(VARIANTS["tnt_s"]))
    )


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_config("tnt_s").depth = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"inner_head": 2}, "unknown field 'inner_head' (did you mean inner_heads?); valid: form, "),
        ({"se": "oter"}, "unknown se 'oter' (did you mean outer?); valid: none, inner, outer, both"),
        ({"form": "timm"}, "unknown form 'timm'; valid: official, legacy"),
        ({"inner_heads": 5}, "inner_heads=5 does not divide word_dim=24; valid: 1, 2, 3, 4, 6, 8, 12, 24"),
        ({"outer_heads": 7}, "outer_heads=7 does not divide patch_dim=384"),
        ({"word_edge": 2}, "inner_heads=4 does not divide word_dim=6; valid: 1, 2, 3, 6"),
        ({"word_edge": 3}, "word_edge=3 does not divide patch_size=16; valid: 1, 2, 4, 8, 16"),
        ({"image_size": 225}, "patch_size=16 does not divide image_size=225; nearest: 224"),
        ({"depth": 0}, "depth=0 must lie in 1 to 1000"),
        ({"depth": 1.5}, "depth=1.5 is a number, not an integer"),
        ({"depth": True}, "depth=True is true or false, not an integer"),
        ({"patch_position": 1}, "patch_position=1 is an integer, not true or false"),
        ({"word_dim": "24"}, "word_dim='24' is a string, not an integer"),
        ({"drop_path": 1.0}, "drop_path=1.0 must lie in [0, 1)"),
        ({"classes": -1}, "classes=-1 must lie in 0 to 1000000"),
        (
            {"patch_dim": 100, "outer_heads": 2},
            "patch_dim=100 is not a multiple of the 16 words a patch; give word_dim",
        ),
    ],
)
def test_a_wrong_value_says_what_is_valid(wrong, says):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the text is compared below)
        get_config("tnt_s", **wrong)
    assert str(refused.value).startswith(says)


def test_an_unknown_model_says_which_are_known():
    with pytest.raises(
        ValueError, match=r"unknown model 'tnt_x' \(did you mean tnt_s\?\); valid: tnt_ti, tnt_s"
    ):
        get_config("tnt_x")
