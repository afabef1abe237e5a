"""The logger of a run: what a resumed run leaves, what a person sees, what is never lost or repeated."""

import dataclasses
import errno
import io
import json
import logging
import resource
import sys
from pathlib import Path

import pytest

from pipeline.config.machine import LoggingConfig
from pipeline.errors import UserError
from pipeline.processes.pace import SlowRank
from pipeline.runs.log import LineFile, spent
from pipeline.training import logger as module
from pipeline.training.logger import RunLogger, RunSize

SIZE = RunSize(steps=20, steps_per_epoch=5, images_per_step=32, devices=2)
EVERY_TWO = LoggingConfig(every=2, seconds=0.0, tensorboard=False)


def opened(directory: Path, step: int = 0, config: LoggingConfig = EVERY_TWO) -> RunLogger:
    logger = RunLogger(directory, config, SIZE)
    logger.rewind(step)
    return logger


def advance(logger: RunLogger, first: int, last: int, every: int = 2) -> None:
    for step in range(first, last + 1):
        values = {"loss": 1 / step, "lr": 1e-3} if step % every == 0 or step == 1 else None
        logger.step(step, values, wait=0.0)
        evaluate(logger, step)


def evaluate(logger: RunLogger, step: int) -> None:
    if step and step % 5 == 0:
        logger.evaluation(step // 5, {"top1": 100 - step, "ema_top1": float("nan")})


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_and_resumed_run_leaves_the_same_metrics(tmp_path):
    whole = opened(tmp_path / "whole")
    advance(whole, 1, 20)
    whole.close()
    for killed_at, resumed_at in ((13, 10), (7, 0), (19, 19), (20, 12), (20, 20)):
        directory = tmp_path / f"{killed_at}-{resumed_at}"
        killed = opened(directory)
        advance(killed, 1, killed_at)
        with open(directory / "metrics.jsonl", "a") as torn:
            torn.write('{"step": 21, "lo')
        resumed = opened(directory, resumed_at)
        evaluate(resumed, resumed_at)
        advance(resumed, resumed_at + 1, 20)
        resumed.close()
        assert (directory / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_what_a_full_disk_refuses_is_written_when_there_is_room(tmp_path):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = LineFile(tmp_path / "lines")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, most))
        file.write("fits\nin part\n")
        file.write("not at all\n")
        with pytest.raises(OSError, match="File too large"):
            file.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert (tmp_path / "lines").read_text() == "fits\nin "
    file.write("again\n")
    file.sync()
    file.close()
    assert (tmp_path / "lines").read_text() == "fits\nin part\nnot at all\nagain\n"


def test_curves_that_cannot_be_written_are_given_up_not_the_run(tmp_path):
    class Full:
        def add(self, step, values):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    logger = opened(tmp_path)
    logger._trackers = [Full()]
    advance(logger, 1, 4)
    logger._trackers = [Full()]
    logger.close()
    assert (tmp_path / "log.txt").read_text().count("Full gets no more points: No space left") == 1
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 4]


def test_metrics_hold_values_by_step_and_no_wall_clock(tmp_path):
    logger = opened(tmp_path)
    advance(logger, 1, 5)
    logger.close()
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 1, "epoch": 0.2, "loss": 1.0, "lr": 1e-3},
        {"step": 2, "epoch": 0.4, "loss": 0.5, "lr": 1e-3},
        {"step": 4, "epoch": 0.8, "loss": 0.25, "lr": 1e-3},
        {"step": 5, "evaluated": 1, "top1": 95.0, "ema_top1": None},
    ]


def test_attempts_add_up_with_the_work_that_was_lost(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    first = opened(tmp_path)
    for step in range(1, 11):
        now[0] += 36
        first.step(step, {"loss": 1.0}, wait=9.0)
    now[0] += 5000  # killed, and in the queue
    second = opened(tmp_path, 5)
    for step in range(6, 11):
        now[0] += 36
        second.step(step, {"loss": 1.0}, wait=9.0)
    total = spent(tmp_path)
    assert total.attempts == 2
    assert total.device_hours == pytest.approx(2 * 15 * 36 / 3600)
    assert total.images_per_second == pytest.approx(32 / 36, abs=0.01)
    shares = [row["wait_share"] for row in rows(tmp_path / "timing.jsonl") if "start" not in row]
    assert shares == [pytest.approx(0.25)] * 15


def test_evaluation_and_checkpoints_are_no_training_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    logger = opened(tmp_path)
    for step in (1, 2):
        now[0] += 1
        logger.step(step, {"loss": 1.0})
        now[0] += 100
        logger.evaluation(1, {"top1": 1.0}) if step == 1 else logger.flush()
    now[0] += 1
    logger.step(3, {"loss": 1.0})
    assert {row["images_per_second"] for row in rows(tmp_path / "timing.jsonl") if "start" not in row} == {
        32.0
    }


def test_without_a_terminal_there_are_plain_lines(tmp_path, capsys):
    logger = opened(tmp_path)
    advance(logger, 1, 2)
    logger.note("half-way")
    logger.close()
    said = capsys.readouterr().err
    assert "step 2 of 20  epoch 0, loss 0.500, " in said
    assert "images/s" in said and "waiting" in said and "left" in said  # noqa: PT018
    assert "half-way" in said and "half-way" in (tmp_path / "log.txt").read_text()  # noqa: PT018
    assert "\x1b" not in said


def test_with_a_terminal_there_is_a_bar(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    logger = opened(tmp_path)
    advance(logger, 1, 2)
    logger.note("[half-way]")
    logger.close()
    assert "2/20" in terminal.getvalue()
    assert "[half-way]" in terminal.getvalue()


def test_few_lines_where_nobody_watches(tmp_path, capsys):
    logger = opened(tmp_path, config=LoggingConfig(every=1, seconds=3600, tensorboard=False))
    advance(logger, 1, 4)
    assert capsys.readouterr().err == ""


def test_what_modules_log_is_kept(tmp_path):
    logger = opened(tmp_path)
    logging.getLogger("pipeline.data.loading.damage").warning("sample %s is damaged", "x")
    logger.close()
    logging.getLogger("pipeline.data.loading.damage").warning("said after the end")
    assert "warning: sample x is damaged" in (tmp_path / "log.txt").read_text()
    assert "after the end" not in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_tensorboard_has_the_curves_and_forgets_what_was_undone(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = LoggingConfig(every=1)
    first = opened(tmp_path, config=config)
    advance(first, 1, 9, every=1)
    first.close()
    second = opened(tmp_path, 5, config)
    advance(second, 6, 10, every=1)
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "validation/top1", "machine/images_per_second"} <= set(
        events.Tags()["scalars"]
    )
    assert [point.step for point in events.Scalars("train/loss")] == list(range(1, 11))


def test_weights_and_biases_is_used_only_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    opened(tmp_path / "without").close()
    with pytest.raises(UserError, match="pip install wandb"):
        opened(tmp_path / "with", config=LoggingConfig(wandb="project"))


def test_other_ranks_write_and_show_nothing(tmp_path, capsys):
    logger = RunLogger(tmp_path / "run", EVERY_TWO, SIZE, rank=1)
    logger.rewind(0)
    advance(logger, 1, 6)
    logger.note("unheard")
    logger.flush()
    logger.close()
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


def test_nothing_was_spent_before_the_start(tmp_path):
    assert spent(tmp_path).attempts == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'"loss": 0.5', b'"loss": 0.4'),
        lambda content: content.replace(b'"step"', b'"stEp"', 1),
        lambda content: content + b'{"step": 4, "loss": 9}\n',
    ],
    ids=["emptied", "shortened", "another number", "a flipped key", "a line too many"],
)
def test_metrics_that_were_changed_since_the_checkpoint_are_put_right(change, tmp_path):
    before = opened(tmp_path / "run")
    advance(before, 1, 4)
    (tmp_path / "step").mkdir()
    assert before.copy()(tmp_path / "step") == ["metrics.jsonl"]
    whole = (tmp_path / "run/metrics.jsonl").read_bytes()
    advance(before, 5, 7)
    before.close()
    assert RunLogger(tmp_path / "run", EVERY_TWO, SIZE).rewind(4, tmp_path / "step") == []
    (tmp_path / "run/metrics.jsonl").write_bytes(change(whole))
    (said,) = RunLogger(tmp_path / "run", EVERY_TWO, SIZE).rewind(4, tmp_path / "step")
    assert "put right" in said
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == whole


def test_shares_of_what_the_gpus_could_do_and_a_slow_rank_stand_beside_the_rate(tmp_path):
    most = {"flop_utilisation": 1e9, "roofline_share": 5e8}
    logger = RunLogger(tmp_path, EVERY_TWO, dataclasses.replace(SIZE, limits=most))
    logger.rewind(0)
    for step, ratio in ((1, 1.2), (2, 1.9), (3, 2.4)):
        logger.step(step, {"loss": 1.0}, 0.0, SlowRank(3, "gpu07", ratio))
    logger.close()
    lines = [row for row in rows(tmp_path / "timing.jsonl") if "images_per_second" in row]
    for row in lines:
        for name, images in most.items():
            assert row[name] == pytest.approx(row["images_per_second"] / images, abs=1e-4)
    assert [row["slowest_rank"] for row in lines] == [3, 3, 3]
    assert [row["slowest_over_median"] for row in lines] == [1.2, 1.9, 2.4]
    log = (tmp_path / "log.txt").read_text()
    assert log.count("rank 3 on gpu07 keeps the others waiting") == 1
    assert "takes 1.9 times" in log
