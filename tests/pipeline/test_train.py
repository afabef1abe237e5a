"""Real runs under real faults: each is found, said in a line, and the run ends as if nothing had happened.

Most are forked from a process that has imported already (`start` in ranks.py). Started cold, as users do:
`test_a_killed_run…[alone]` (killed, and resumed), `test_a_signal_loses_no_step[15]`,
`test_a_signal_while_torch_is_imported…`, and wherever the environment or the limits differ.
"""

import json
import os
import shutil
import signal

import pytest

import tnt
import tnt.weights
from pipeline.config.overrides import compose
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from tests.pipeline.ranks import DEADLINE, ROOT, start
from tests.pipeline.small_runs import ALONE, STEPS, TWO, Left, Place, end_of

GONE = "another process of this run is gone or does not answer; starting the run again continues it"
# World size, ZeRO stage, and after which step a rank is killed, with how many workers. That a run resumes to
# the bit at every stage is for test_engine.py to show.
MACHINES = [
    pytest.param(1, 0, ((2, 0), (9, 2), (17, 1)), id="alone", marks=ALONE),
    pytest.param(2, 2, ((9, 2),), id="two ranks, ZeRO 2", marks=TWO),
]


@pytest.mark.slow
@pytest.mark.parametrize(("world", "stage", "kills"), MACHINES)
def test_a_killed_run_ends_to_the_bit_where_it_would_have(place, gold, world, stage, kills):
    """Weights, their average, optimizer state and metrics; with other numbers of workers in between."""
    cold = world == 1
    for step, workers in kills:
        more = (f"engine.zero_stage={stage}", f"data.loading.workers={workers}")
        processes = place.start(*more, world=world, cold=cold and step == kills[0][0])
        place.reaches(step, processes)
        victim = processes[-1]
        victim.kill()
        for process in processes:
            status, err = end_of(process)
            assert status == (-signal.SIGKILL if process is victim else 1), err
            assert process is victim or GONE in err, err
    assert Left.by(place.train(f"engine.zero_stage={stage}", world=world, cold=cold)) == gold(world, stage)
    assert place.record["attempts"] == len(kills) + 1
    assert "goes on after step" in place.log()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@ALONE
def test_a_signal_loses_no_step(place, gold, number):
    often = ("engine.checkpoint_minutes=0", "engine.checkpoint_every=1")
    processes = place.start(*often, cold=number == signal.SIGTERM)
    place.reaches(14, processes)
    processes[0].send_signal(number)
    status, err = end_of(processes[0])
    assert status == (130 if number == signal.SIGINT else 0), err
    [said] = [line for line in place.log().splitlines() if "ended by" in line]
    step = int(said.split("after step ")[1].split(";")[0])
    assert place.steps()[-1] == step
    rows = [json.loads(line) for line in (place.directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == step
    assert Left.by(place.train()) == gold()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "stage", "step"), [pytest.param(1, 0, 28, marks=ALONE), pytest.param(2, 2, 14, marks=TWO)]
)
def test_a_signal_ends_an_evaluation_which_is_done_again(place, gold, world, stage, step):
    """Its step's checkpoint is there already; one rank hears of it, all end at the same batch."""
    processes = place.start(f"engine.zero_stage={stage}", world=world)
    place.reaches(step - 12, processes)
    for process in processes:
        process.kill()
        process.communicate()
    slow = ("engine.checkpoint_minutes=0", "engine.evaluation_batch=1", f"engine.zero_stage={stage}")
    processes = place.start(*slow, world=world)
    place.reaches(step, processes)
    processes[-1].send_signal(signal.SIGTERM)
    for process in processes:
        status, err = end_of(process)
        assert status == 0, err
    assert f"ended by SIGTERM after step {step}" in place.log()
    assert place.steps()[-1] == step
    last = (place.directory / "metrics.jsonl").read_text().splitlines()[-1]
    assert "lr" in json.loads(last), "the evaluation was done"
    assert Left.by(place.train(f"engine.zero_stage={stage}", world=world)) == gold(world, stage)


@pytest.mark.slow
@ALONE
def test_a_failed_evaluation_costs_no_step(place, gold, shards, tmp_path):
    copy = tmp_path / "digits"
    shutil.copytree(shards, copy)
    [shard] = copy.glob("digits-validation-*.tar")
    shard.rename(tmp_path / "elsewhere")
    status, err = end_of(place.start(f"data.root={copy}", "engine.checkpoint_minutes=0")[0])
    assert (status, place.steps()) == (1, [14]), err
    assert "the validation shards" in err
    (tmp_path / "elsewhere").rename(shard)
    assert Left.by(place.train(f"data.root={copy}")) == gold()


@pytest.mark.slow
def test_two_ranks_end_together_and_the_job_is_requeued(place, tmp_path):
    log, scontrol = tmp_path / "scontrol.log", tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    scontrol.chmod(0o755)
    env = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    processes = place.start("engine.zero_stage=1", world=2, env=env)
    place.reaches(2, processes)
    processes[1].send_signal(signal.SIGUSR1)  # one rank hears of it, both end at the same step
    assert [end_of(process)[0] for process in processes] == [0, 0]
    assert log.read_text() == "--oneliner show job 4711\nrequeue 4711\n"
    assert "job 4711 is requeued" in place.log()
    assert not list((tmp_path / "records").glob("*"))


@pytest.mark.slow
def test_a_signal_while_torch_is_imported_does_not_kill(place):
    command = ["-X", "importtime", ROOT / "pipeline/train.py", *place.settings]
    process = start(command)
    for line in process.stderr:
        if "torch._C" in line or "torch.version" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err[-2000:]
    assert "ended by SIGTERM after step 0" in place.log()


SHORT = ("engine.zero_stage=2", "cluster.timeout=4", "data.loading.timeout=3", "data.loading.workers=0")


@pytest.mark.slow
@TWO
def test_a_frozen_rank_ends_the_run(place, gold):
    processes = place.start(*SHORT, world=2)
    place.reaches(2, processes)
    processes[1].send_signal(signal.SIGSTOP)
    status, err = end_of(processes[0])
    assert status == 1
    assert GONE in err
    assert "Timed out waiting 4000ms" in err
    assert "Traceback" not in err
    assert GONE in place.log()
    processes[1].kill()
    processes[1].communicate()
    assert Left.by(place.train("engine.zero_stage=2", world=2)) == gold(2, 2)


@pytest.mark.slow
def test_weights_that_explode_stop_the_run_with_the_samples(place, tmp_path):
    model = tnt.TNT(compose(place.settings).model.network)
    for parameter in model.parameters():
        parameter.data.mul_(1e30)
    tnt.weights.save(model, tmp_path / "huge.safetensors")
    status, err = end_of(place.start(f"init={tmp_path / 'huge.safetensors'}")[0])
    assert status == 1
    assert "3 steps in a row up to step" in err
    assert ".tar" in err.splitlines()[-1]
    for path in place.directory.glob("checkpoints/step-*"):
        assert json.loads((path / "state.json").read_text())["trainer"]["in_a_row"] < 3


@pytest.mark.slow
def test_changed_data_are_refused_and_a_second_trainer_too(place, shards, tmp_path):
    copy = tmp_path / "digits"
    shutil.copytree(shards, copy)
    processes = place.start(f"data.root={copy}")
    place.reaches(2, processes)
    status, err = end_of(place.start(f"data.root={copy}")[0])
    assert status == 1
    assert f"is being trained by process {processes[0].pid} on" in err
    processes[0].kill()
    processes[0].communicate()

    shutil.rmtree(copy)
    copy.mkdir()
    make(digits(), copy, Packing(workers=1, samples_per_shard=300))
    status, err = end_of(place.start(f"data.root={copy}")[0])
    assert status == 2
    assert "the data changed since run" in err
    assert len(err.splitlines()) == 1
    assert len(list((tmp_path / "runs").glob("*/checkpoints"))) == 1


@pytest.mark.slow
@ALONE
def test_a_finished_run_is_not_run_again_and_its_end_can_be_repeated(place, gold):
    """Killed between its last checkpoint and its record, it writes the same once more without training."""
    directory = place.train()
    record = place.record
    commits = (directory / "checkpoints/commits.jsonl").read_text()
    [process] = place.start()
    out, _ = process.communicate(timeout=DEADLINE)
    assert f"run {directory.name} has finished" in out
    (directory / "model.safetensors").unlink()
    next((place.folder / "records").glob("*.json")).unlink()
    assert Left.by(place.train()) == gold()
    again = place.record
    assert (directory / "checkpoints/commits.jsonl").read_text() == commits
    for name in ("weights_sha256", "raw", "ema", "steps", "science"):
        assert again[name] == record[name]


@pytest.mark.slow
def test_streamed_shards_train_and_are_saved_between_epochs_only(place):
    place.train("data.reader=webdataset", "engine.keep=9", "engine.checkpoint_minutes=1e-9")
    assert place.record["science"]["data"]["reader"] == "webdataset"
    assert any("not counted" in event for event in place.record["events"])
    assert place.steps() == [14, 28]


@pytest.mark.slow
@ALONE
def test_staged_shards_give_the_same_run(place, gold, tmp_path):
    assert Left.by(place.train(f"data.stage={tmp_path / 'disk'}")) == gold()
    assert len(list((tmp_path / "disk").glob("*/*.tar"))) == 2


@pytest.mark.slow
def test_nothing_of_the_environment_is_written_down(place):
    env = {"WANDB_API_KEY": "CANARY-4711", "AWS_SECRET_ACCESS_KEY": "CANARY-4712"}
    directory = place.train("logging.tensorboard=true", env=env)
    for path in [*directory.rglob("*"), *(place.folder / "records").rglob("*")]:
        if path.is_file():
            assert b"CANARY-47" not in path.read_bytes(), path
            if directory in path.parents:
                assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
@TWO
def test_the_world_may_change(place, gold):
    """Two ranks, one, two again under ZeRO 1: the same batches, and nearly the same numbers."""
    for world, step in ((2, 5), (1, 16)):
        processes = place.start("engine.zero_stage=1", "engine.micro_batch=48", world=world)
        place.reaches(step, processes)
        for process in processes:
            process.kill()
            process.communicate()
    directory = place.train("engine.zero_stage=1", "engine.micro_batch=48", world=2)
    losses = _losses((directory / "metrics.jsonl").read_bytes())
    expected = _losses(gold(2, 2).metrics)
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_the_losses_do_not_depend_on_how_the_global_batch_is_cut(tmp_path, shards):
    """Neither which paths a view drops nor how it is mixed and erased: all of it belongs to the view."""
    more = ("recipe.global_batch=32", "recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.drop_path=0.3")
    losses = []
    for world, size in ((1, 32), (1, 8), (2, 16), (4, 8)):
        place = Place(tmp_path / f"{world} {size}", shards)
        place.folder.mkdir()
        directory = place.train(*more, f"engine.micro_batch={size}", world=world)
        losses.append(_losses((directory / "metrics.jsonl").read_bytes()))
    assert len(losses[0]) == 44
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-5)


def _losses(metrics: bytes) -> list[float]:
    rows = [json.loads(line) for line in metrics.splitlines()]
    return [row["loss"] for row in rows if "lr" in row]
