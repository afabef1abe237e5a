"""The engine: the same step for every ZeRO stage and world size, exact resume, nothing non-finite gets in."""

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from pipeline.training.parallel.deepspeed_adapter import CheckpointFiles
from pipeline.training.parallel.engine import FOLDER, micro_batch
from tests.pipeline.ranks import environment, run_ranks

pytestmark = pytest.mark.xdist_group("engine")  # its runs are shared

STAGES = (0, 1, 2, 3)
WORKER = Path(__file__).parent / "engine_run.py"


def run(world: int, runs: list[dict], **environment: str) -> list[dict]:
    """What rank 0 saw; that the others saw the same is checked."""
    said = [json.loads(out) for out in run_ranks(world, [WORKER, json.dumps(runs)], **environment)]
    assert all(repr(other) == repr(said[0]) for other in said)  # NaN is not equal to itself
    return said[0]


def saving(root: Path, stage: int, **more) -> dict:
    return {"root": str(root / str(stage)), "stage": stage, "steps": 4, "save": [2], **more}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One rank: for every stage a run that saves in its middle, then one that goes on from there."""
    root = tmp_path_factory.mktemp("alone")
    runs = [saving(root, stage, save=save) for stage in STAGES for save in ([2], [])]
    said = run(1, runs)
    return {stage: said[2 * stage : 2 * stage + 2] for stage in STAGES}


@pytest.fixture(scope="module")
def pair_root(tmp_path_factory):
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(pair_root):
    runs = [saving(pair_root, stage, save=save) for stage in STAGES for save in ([2], [])]
    said = run(2, runs)
    return {stage: said[2 * stage : 2 * stage + 2] for stage in STAGES}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", [1, 2])
def test_a_resumed_run_goes_on_to_the_bit(alone, pair, world, stage):
    whole, resumed = (alone if world == 1 else pair)[stage]
    assert resumed["resumed"] == {"step": 2, "weights": whole["saved"]["weights"]}
    assert resumed["steps"] == whole["steps"][2:]
    assert resumed["weights"] == whole["weights"]
    assert whole["weights"] != whole["saved"]["weights"]


@pytest.mark.parametrize("world", [1, 2])
def test_zero_stages_train_the_same_weights(alone, pair, world):
    runs = alone if world == 1 else pair
    assert runs[1][0]["weights"] == runs[0][0]["weights"]
    assert runs[2][0]["weights"] == runs[0][0]["weights"]
    losses = {stage: [step["loss"] for step in runs[stage][0]["steps"]] for stage in STAGES}
    assert losses[3] == pytest.approx(losses[0], rel=1e-2)  # its linear layers round elsewhere


@pytest.mark.parametrize("stage", STAGES)
def test_weights_and_their_exchange_are_fp32(alone, pair, stage):
    for runs in (alone, pair):
        assert runs[stage][0]["dtypes"] == ["torch.float32"]


@pytest.mark.slow
def test_accumulation_precision_clipping_and_nan(tmp_path):
    plain = {"stage": 0, "steps": 3, "precision": "fp32"}
    variants = {
        "plain": plain,
        "accumulated": {**plain, "micro_batch": 2},
        "checkpointed": {**plain, "grad_checkpointing": True},
        "bf16": {**plain, "precision": "bf16"},
        **{f"clipped {stage}": {**plain, "stage": stage, "clip": 0.5} for stage in STAGES},
        **{
            f"poisoned {stage}": {**plain, "stage": stage, "poisoned": [1], "micro_batch": 4}
            for stage in STAGES
        },
        "poisoned fused": {**plain, "fused": True, "poisoned": [1], "micro_batch": 4},
        **{f"spoilt {stage}": {**saving(tmp_path, stage), "spoilt": True, "steps": 2} for stage in STAGES},
    }
    said = dict(zip(variants, run(1, list(variants.values())), strict=True))
    losses = {name: [step["loss"] for step in out["steps"]] for name, out in said.items()}
    norms = {name: [step["norm"] for step in out["steps"]] for name, out in said.items()}

    assert norms["accumulated"] == pytest.approx(norms["plain"], rel=1e-5)
    assert losses["accumulated"] == pytest.approx(losses["plain"], rel=1e-5)
    assert said["checkpointed"]["weights"] == said["plain"]["weights"]
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.05)
    assert losses["bf16"] != losses["plain"]

    fused = said["poisoned fused"]["steps"]  # skipped by the optimizer's kernel, as on a GPU
    assert [step["applied"] for step in fused] == [True, False, True]
    assert [step["loss"] for step in fused] == pytest.approx(losses["poisoned 0"], rel=1e-5, nan_ok=True)

    for stage in STAGES:
        assert norms[f"clipped {stage}"][0] == pytest.approx(norms["plain"][0], rel=1e-5)  # before clipping
        assert said[f"clipped {stage}"]["weights"] != said["plain"]["weights"]
        assert losses[f"clipped {stage}"] == pytest.approx(losses["clipped 0"], rel=1e-5)

        poisoned = said[f"poisoned {stage}"]["steps"]
        assert [step["applied"] for step in poisoned] == [True, False, True]
        assert math.isnan(poisoned[1]["loss"])
        assert math.isfinite(poisoned[2]["loss"])  # the weights stayed clean

        assert "not finite" in said[f"spoilt {stage}"]["error"]
        assert not list((tmp_path / str(stage)).glob("step-*"))


@pytest.mark.slow
def test_a_poisoned_rank_is_skipped_by_all_and_world_sizes_convert(pair, pair_root):
    """One launch of two ranks, one of a single: from two ranks to one and back to two."""
    grown = [saving(pair_root, stage, steps=3, save=[3]) for stage in STAGES]
    changed = [
        {**saving(pair_root, 1), "save": []},
        {**saving(pair_root, 1), "stage": 2, "save": []},
        {**saving(pair_root, 2), "stage": 0},
    ]
    alone = run(1, grown + changed)
    poisoned = [{"stage": stage, "steps": 2, "poisoned": [0]} for stage in STAGES]
    back = run(2, [saving(pair_root, stage, save=[]) for stage in STAGES] + poisoned)

    for stage in STAGES:
        whole = alone[stage]
        assert whole["resumed"] == {"step": 2, "weights": pair[stage][0]["saved"]["weights"]}
        assert back[stage]["resumed"] == {"step": 3, "weights": whole["saved"]["weights"]}
        assert math.isfinite(back[stage]["steps"][0]["loss"])
        assert not list((pair_root / str(stage)).glob(".tmp-*"))
        steps = back[len(STAGES) + stage]["steps"]
        assert [step["applied"] for step in steps] == [False, True]
        assert math.isfinite(steps[1]["loss"])
    native, converted, refused = alone[len(STAGES) :]
    assert converted == native  # moments and step counts as well, or the next step would differ
    assert "go on with engine.zero_stage=2" in refused["error"]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_without_zero_gradients_travel_in_buckets_during_the_backward_pass(tmp_path, world):
    """Each layout gives its own bits, the same again and after a start in its middle."""
    whole = {"stage": 0, "steps": 4, "precision": "fp32", "micro_batch": 1}
    cut = {**saving(tmp_path, 0), **whole, "bucket": 30_000}
    by_one, by_many, resumed = run(world, [whole, cut, {**cut, "save": []}])
    assert {step["early"] for step in by_one["steps"]} == {1}
    assert min(step["early"] for step in by_many["steps"]) > 5
    assert resumed["steps"] == by_many["steps"][2:]
    assert resumed["weights"] == by_many["weights"]
    if world == 2:  # of two numbers there is but one sum
        assert by_many["weights"] == by_one["weights"]
    [alone] = run(1, [whole])
    for name in ("loss", "norm"):
        values = [[step[name] for step in said["steps"]] for said in (alone, by_one, by_many)]
        assert values[1] == pytest.approx(values[0], rel=1e-5)
        assert values[2] == pytest.approx(values[0], rel=1e-5)


@pytest.mark.slow
def test_fused_kernels_give_the_same_step_also_with_split_weights_and_checkpointing():
    """Stage 3 holds only parts of the weights, and fetches them by calls of modules that the kernels skip."""
    plain = {"stage": 0, "steps": 1, "precision": "fp32"}
    fused = {**plain, "kernels": "fused"}
    by_torch, *by_kernels = run(1, [plain, fused, {**fused, "stage": 3, "grad_checkpointing": True}])
    for said in by_kernels:
        for value in ("loss", "norm"):
            assert said["steps"][0][value] == pytest.approx(by_torch["steps"][0][value], rel=1e-5)
        assert said["weights"] == by_kernels[0]["weights"] != by_torch["weights"]


GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_a_deterministic_run_gives_the_same_bits_again_and_names_the_kernel_that_cannot(device):
    plain = {"stage": 0, "steps": 3, "device": device, "deterministic": True}
    visible = {"CUDA_VISIBLE_DEVICES": "0"} if device == "cuda" else {}
    kernels = ("torch", "fused") if device == "cuda" else ("torch",)
    runs = [{**plain, "kernels": name} for name in kernels]
    first, again = run(1, [*runs, {**plain, "forbidden": True}], **visible), run(1, runs, **visible)
    *same, forbidden = first
    assert again == same
    assert all(len(one["steps"]) == 3 for one in same)
    assert forbidden["error"] == (
        "engine.deterministic=true: this network needs put_, which cannot be deterministic on this device; "
        "take engine.deterministic=false"
    )


@pytest.mark.parametrize(
    ("share", "most", "block", "size"),
    [(128, 128, 8, 128), (128, 100, 8, 64), (24, 128, 8, 24), (64, 8, 8, 8)],
)
def test_the_micro_batch_is_the_largest_that_fits(share, most, block, size):
    assert micro_batch(share, most, block) == size


def test_a_micro_batch_below_a_block_is_refused():
    with pytest.raises(UserError, match=r"engine.micro_batch is 4.*at least 8"):
        micro_batch(64, 4, 8)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_checkpoint_that_brings_code_is_not_run(tmp_path):
    torch.save({"module": Canary(tmp_path / "canary")}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(pickle.UnpicklingError):
        CheckpointFiles().load(str(tmp_path / "mp_rank_00_model_states.pt"))
    assert not (tmp_path / "canary").exists()


# Names that are not part of DeepSpeed's documented interface.
REACHED_INTO = """
import inspect, os
os.environ["DS_ACCELERATOR"] = "cpu"
import deepspeed.ops
from deepspeed.runtime.engine import DeepSpeedEngine as Engine
begin = inspect.getsource(Engine.__init__)
print([
    *(name for name in ("micro_steps", "global_steps", "global_samples", "skipped_steps")
      if f"self.{name} = 0" not in begin),
    *(name for name in ("checkpoint_engine",) if f"self.{name} = " not in begin),
    *(name for name in ("_copy_recovery_script", "was_step_applied") if not hasattr(Engine, name)),
    *(name for name in ("self._config.load_universal_checkpoint",)
      if name not in inspect.getsource(Engine.load_universal_checkpoint)),
    *(name for name in ("deepspeed_shm_comm",) if name not in deepspeed.ops.__compatible_ops__),
])
"""


def test_deepspeed_has_what_the_adapter_reaches_into():
    """Read in DeepSpeed 0.19.8. Where one is missing, parallel/deepspeed_adapter.py must change."""
    [missing] = run_ranks(1, ["-c", REACHED_INTO])
    assert missing.splitlines()[-1] == "[]"


@pytest.mark.nightly
def test_deepspeed_starts_without_a_compiler(tmp_path):
    """Neither a compiler nor ninja nor MPI is within reach, and nothing is built."""
    out = run_ranks(
        1,
        [WORKER, json.dumps([{"stage": 1, "steps": 1}])],
        PATH=str(tmp_path),
        TORCH_EXTENSIONS_DIR=str(tmp_path / "extensions"),
    )
    assert json.loads(out[0])[0]["steps"][0]["applied"]
    assert not (tmp_path / "extensions").exists()


def test_importing_the_engine_does_not_import_deepspeed():
    check = "import sys, pipeline.training.parallel.engine; print('deepspeed' in sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", check], text=True, env=environment())
    assert out == "False\n"
    assert FOLDER == "engine"  # a published checkpoint's layout
