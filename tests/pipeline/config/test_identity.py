"""A run's id: what changes it, and what must not."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.identity import is_run_id, run_id, science
from pipeline.config.overrides import compose
from pipeline.config.run import SCIENCE
from pipeline.errors import UserError
from pipeline.runs.directory import run_directory

DATA = "f" * 64


def id_of(*overrides: str, fingerprint: str = DATA) -> str:
    return run_id(compose(overrides), fingerprint)


@pytest.mark.parametrize(
    "override",
    ["paths.runs=/x", "paths.data=/y", "data.root=/z", "engine.zero_stage=2", "engine.micro_batch=8",
     "logging.every=3", "cluster=slurm", "data.loading.workers=0", "about.cell=4", "model=tnt_s",
     "recipe.evaluate_every=7", "data.lanes=8", "data.window=2"],
)  # fmt: skip
def test_where_and_how_fast_is_not_part_of_it(override):
    assert id_of(override) == id_of()


@pytest.mark.parametrize(
    "override",
    ["seed=1", "precision=fp32", "scale=demo", "model=tnt_b", "model.inner_heads=2", "recipe.lr=2e-3",
     "data=cifar10", "data.augmentation.mixup=0", "data.order=lane", "recipe.init=0123456789ab",
     "recipe.teacher=0123456789ab", "recipe.loss=bce", "recipe.optimizer=lamb", "recipe.layer_decay=0.8",
     "recipe.drop_path_rates=uniform"],
)  # fmt: skip
def test_whatever_changes_the_numbers_changes_it(override):
    assert id_of(override) != id_of()


def test_other_data_is_another_run():
    assert id_of(fingerprint="0" * 64) != id_of()


def test_it_is_the_same_in_another_process_with_another_hash_seed():
    program = f"from pipeline.config.overrides import compose; from pipeline.config.identity import run_id; print(run_id(compose([]), {DATA!r}))"  # fmt: skip # noqa: E501
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == id_of()


@pytest.mark.parametrize(
    ("one", "other"),
    [(["recipe.lr=0.001", "recipe.warmup_epochs=5"], ["recipe.lr=1e-3"]),
     (["model.word_dim=24"], ["model.word_dim=null"]),
     (["data.augmentation.mean=[0.5,0.5,0.5]"], ["data.augmentation.mean=[5e-1,.5,0.5]"]),
     (["model=tnt_b"], ["model.patch_dim=640", "model.word_dim=40", "model.outer_heads=10"]),
     (["recipe=finetune_384"], ["data.image_size=384", "recipe.epochs=30", "recipe.global_batch=512",
       "recipe.lr=5e-6", "recipe.min_lr=5e-6", "recipe.warmup_epochs=0", "recipe.weight_decay=1e-8"])],
)  # fmt: skip
def test_two_spellings_are_one_run(one, other):
    assert id_of(*one) == id_of(*other)


def test_lanes_count_where_there_are_lanes():
    assert id_of("data.order=lane", "data.lanes=8") != id_of("data.order=lane")


def test_weights_to_start_from_are_named_by_content(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    third.write_bytes(b"others")
    assert id_of(f"recipe.init={first}") == id_of(f"recipe.init={second}") != id_of(f"recipe.init={third}")
    with pytest.raises(UserError, match="neither a run's id"):
        id_of(f"recipe.init={tmp_path / 'nothing'}")


def test_an_id_is_a_directorys_name(tmp_path):
    config = compose([f"paths.runs={tmp_path}"])
    assert is_run_id(run_id(config, DATA))
    assert run_directory(config, run_id(config, DATA)).parent == tmp_path
    assert not is_run_id("../../etc/pa")
    assert set(science(config)) == {*SCIENCE, "revisions"}
