"""Configs: what the command line means, what it refuses and in which words, and what never loads torch."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import run as configs
from pipeline.config.overrides import GROUPS, choices, compose, from_command_line
from pipeline.config.run import RunConfig, from_plain, plain
from pipeline.config.science import Recipe
from pipeline.data.augmentation.settings import Augmentation
from pipeline.errors import UserError
from tnt.config import VARIANTS, TNTConfig

ROOT = Path(__file__).parents[3]


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_asked_for_is_the_papers_tnt_s_on_imagenet():
    config = compose([])
    assert config.model.network == VARIANTS["tnt_s"].replace(drop_path=0.1)
    assert config.recipe == Recipe()
    assert config.data.augmentation == Augmentation()
    assert config.data.root == "data/imagenet"
    assert (config.seed, config.scale, config.precision) == (0, "paper", "bf16")


@pytest.mark.parametrize("name", VARIANTS)
def test_each_published_variant_is_a_choice(name):
    network = compose([f"model={name}"]).model.network
    assert network == VARIANTS[name].replace(drop_path=0.1)


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "model"])
def test_each_choice_composes(group):
    assert choices(group)
    for name in choices(group):
        assert isinstance(compose([f"{group}={name}"]), RunConfig)
        assert isinstance(compose(["scale=demo", f"{group}={name}"]), RunConfig)


def test_the_papers_data_and_recipes_are_choices():
    assert {"imagenet", "cifar10", "cifar100", "flowers", "pets", "digits"} <= set(choices("data"))
    assert {"pretrain", "finetune_384"} <= set(choices("recipe"))


def test_no_choice_is_hidden_from_git():
    """A pattern of .gitignore that is meant for shards must not reach conf/data."""
    paths = [str(path.relative_to(ROOT)) for path in (ROOT / "pipeline" / "conf").rglob("*.yaml")]
    shared = [path for path in paths if not path.startswith("pipeline/conf/local/")]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *shared], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == ""


def test_a_value_said_once_reaches_every_reader():
    config = compose(["data.image_size=384", "data.classes=7", "recipe.drop_path=0.3"])
    network = config.model.network
    assert (network.image_size, network.classes, network.drop_path) == (384, 7, 0.3)
    assert config.data.augmentation.image_size == 384


def test_fine_tuning_is_at_384_from_what_init_names():
    config = compose(["recipe=finetune_cifar", "data=cifar10", "init=0123456789ab"])
    assert (config.recipe.init, config.recipe.epochs) == ("0123456789ab", 64)
    assert (config.model.network.image_size, config.model.network.classes) == (384, 10)
    assert config.data.augmentation == Augmentation(image_size=384)
    assert compose(["recipe=finetune_fine_grained", "data=pets"]).recipe.epochs == 300


@pytest.mark.parametrize("word_edge", [2, 4, 8])
def test_the_demo_keeps_what_the_tables_vary(word_edge):
    """Tables 4 to 7 name switches of a patch of 16 words; each must be possible in the small network."""
    for model in ("tnt_s", "tnt_s_legacy"):
        chosen = ["scale=demo", f"model={model}", "data=imagenet", f"model.word_edge={word_edge}"]
        network = compose([*chosen, "model.inner_heads=2"]).model.network
        assert isinstance(network, TNTConfig)
        assert network.words * network.c == network.patch_dim
        assert (network.patch_size, network.words) == (16, (16 // word_edge) ** 2)
    for heads in (1, 2, 4, 8):
        compose(["scale=demo", f"model.inner_heads={heads}"])
    sizes = [compose(["scale=demo", f"model={m}"]).model.network for m in ("tnt_ti", "tnt_s", "tnt_b")]
    assert sizes[0].patch_dim < sizes[1].patch_dim < sizes[2].patch_dim


def test_the_demo_is_digits_whatever_the_command_said_before():
    config = compose(
        ["model=tnt_b", "data=cifar10", "recipe=finetune_cifar", "scale=demo", "recipe.epochs=3"]
    )
    assert (config.data.name, config.data.classes, config.recipe.epochs) == ("digits", 10, 3)


def test_a_words_width_follows_its_edge():
    assert compose(["model.word_edge=8"]).model.network.word_dim == 96
    assert compose(["model.word_edge=8", "model.word_dim=24"]).model.network.word_dim == 24


def test_a_network_of_timm_has_no_fields_of_ours():
    config = compose(["model=timm:deit_small_patch16_224", "data=cifar10"])
    assert config.model.timm_name == "deit_small_patch16_224"
    assert config.model.network.classes == 10
    assert "unknown setting of model 'inner_heads'" in refusal("model=timm:resnet50", "model.inner_heads=2")


@pytest.mark.parametrize("text", ["123456789012", "12e456789012", "a,b", "it's", "back\\", "ü ö", "=", "[x]"])
def test_text_arrives_as_typed(text):
    assert compose([f"recipe.init={text}"]).recipe.init == text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=tnt_x", "unknown model 'tnt_x' (did you mean 'tnt_s'?): valid are tnt_ti, tnt_s,"),
        ("data=imagnet", "did you mean 'imagenet'?"),
        ("recpe.lr=1", "unknown setting 'recpe' (did you mean 'recipe'?): valid are data, recipe"),
        ("recipe.epoch=1", "unknown setting of recipe 'epoch' (did you mean 'epochs'?): valid are epochs,"),
        (
            "data.augmentation.mixupp=1",
            "unknown setting of data.augmentation 'mixupp' (did you mean 'mixup'?)",
        ),
        ("recipe.lr.x=1", "recipe.lr has no settings below it"),
        ("recipe.epochs=abc", "recipe.epochs='abc' must be a whole number"),
        ("recipe.epochs=1.5", "recipe.epochs=1.5 must be a whole number"),
        ("recipe.lr=true", "recipe.lr=True must be a number"),
        ("engine.compile=1", "engine.compile=1 must be true or false"),
        ("recipe.lr=null", "recipe.lr=None must be a number"),
        ("recipe.lr=nan", "recipe.lr is nan; it must be above 0, at most 100"),
        ("data.augmentation.scale=[1]", "data.augmentation.scale=[1] must be 2 values"),
        ("recipe=pretrain,finetune", "unknown recipe 'pretrain,finetune'"),
        ("recipe.lr=1,2", "recipe.lr=1,2 is no single value"),
        ("recipe.lr", "'recipe.lr' is no override"),
        ("recipe.x={", "unknown setting of recipe 'x'"),
        ("recipe.lr={", "cannot read recipe.lr={"),
        ("recipe={lr: 1}", "unknown recipe '{lr: 1}'"),
        ("data.augmentation=3", "data.augmentation is a section"),
        ("+new=1", "unknown setting '+new'"),
        ("~seed", "'~seed' is no override"),
        ("hydra.run.dir=x", "unknown setting 'hydra'"),
        ("model.name=x", "unknown setting of model 'name'"),
        ("model.inner_heads=5", "model.inner_heads=5 does not divide word_dim=24; valid: 1, 2, 3"),
        (
            "model.image_size=32",
            "model.image_size is 32 but data.image_size is 224; give data.image_size alone",
        ),
        ("data.image_size=225", "patch_size=16 does not divide image_size=225; nearest: 224"),
        ("precision=fp16", "unknown precision 'fp16'"),
        (
            "recipe.warmup_epochs=300",
            "recipe.warmup_epochs=300 and recipe.cooldown_epochs=0 leave nothing of recipe.epochs=300",
        ),
        ("recipe.optimizer=adam", "unknown recipe.optimizer 'adam' (did you mean 'adamw'?)"),
        ("recipe.layer_decay=0", "recipe.layer_decay is 0.0; it must be above 0, at most 1"),
        ("recipe.teacher_network=tnt_s", "recipe.teacher_network is of the file recipe.teacher"),
        ("recipe.repeats=5", "recipe.repeats is 5; it must be from 1 to 4"),
        ("engine.zero_stage=4", "engine.zero_stage is 4; valid: 0, 1, 2, 3"),
        ("engine.keep=1", "engine.keep is 1; at least 2"),
        ("engine.profile=20-10", "engine.profile is '20-10'; it must look like 10-20"),
        ("paths.data=${oc.env:HOME}", "asks for a resolver"),
        ("paths.data=${nothing}", "config: "),
        ("paths.data=${", "config: "),
    ],
)
def test_a_mistake_is_one_line_with_the_cure(override, message):
    assert message in refusal(override)


def test_a_whole_config_is_taken_from_a_file(tmp_path, capsys):
    config = compose(["scale=demo", "model=tnt_b", "seed=7"])
    configs.write(config, tmp_path / "config.yaml")
    given = ["--config", str(tmp_path / "config.yaml")]
    assert from_command_line(given, "") == config
    assert from_command_line([*given, "--cfg", "job"], "") is None
    assert "seed: 7" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--config says every value; 'seed=8' cannot change it"):
        from_command_line([*given, "seed=8"], "")
    with pytest.raises(UserError, match="there is no config at nowhere"):
        from_command_line(["--config", "nowhere"], "")


@pytest.mark.parametrize("model", ["tnt_b", "timm:deit_small_patch16_224"])
def test_a_config_survives_its_file(tmp_path, model):
    config = compose([f"model={model}", "data=flowers", "seed=3", "recipe.init=0123456789ab"])
    configs.write(config, tmp_path / "config.yaml")
    assert configs.read(tmp_path / "config.yaml") == config
    assert from_plain(plain(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no config"),
        ("a: [", "is damaged"),
        ("seed: 1\n", "is missing"),
        ("!!python/object/apply:os.system [touch canary]", "is damaged"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        configs.read(tmp_path / "config.yaml")
    assert not (tmp_path / "canary").exists()


def test_every_field_is_annotated_and_plain():
    """A field without an annotation could be set by no config."""

    def check(value: object) -> None:
        assert dataclasses.is_dataclass(value)
        own = {name for name in vars(type(value)) if not name.startswith("_")}
        fields = {field.name for field in dataclasses.fields(value)}
        assert all(callable(vars(type(value))[name]) or isinstance(vars(type(value))[name], property)
                   for name in own - fields)  # fmt: skip
        for name in fields:
            if dataclasses.is_dataclass(part := getattr(value, name)):
                check(part)

    check(RunConfig())


def test_the_resolved_config_says_every_value(capsys):
    assert from_command_line(["seed=5", "--cfg", "job", "--resolve"], "") is None
    import yaml

    assert from_plain(yaml.safe_load(capsys.readouterr().out)) == compose(["seed=5"])
    assert from_command_line(["seed=5", "--cfg", "job"], "") is None
    assert "image_size: ${data.image_size}" in capsys.readouterr().out


def test_every_field_of_the_network_can_be_set():
    fields = {field.name for field in dataclasses.fields(TNTConfig)}
    assert fields | {"name"} == set(plain(compose([]))["model"])


def test_what_one_command_asks_for_does_not_reach_the_next():
    compose(["recipe.lr=5e-4", "data.augmentation.scale=[0.5,1.0]"])
    assert compose([]) == compose(["model=tnt_s"])
    assert compose([]).recipe.lr == 1e-3


def test_a_config_is_composed_without_torch():
    program = (
        "import sys; from pipeline.config.overrides import compose; compose(['scale=demo']); "
        "import pipeline.config.identity; print('torch' in sys.modules, 'deepspeed' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_lamb_and_zero_are_refused_together():
    assert "ZeRO cuts: engine.zero_stage=0" in refusal("recipe.optimizer=lamb", "engine.zero_stage=1")
