"""Curves and settings in each tracker, by its own offline mode. One that is not installed is not tested."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.config.machine import LoggingConfig
from pipeline.errors import UserError
from pipeline.training.trackers import open_trackers
from tests.pipeline.ranks import ROOT

VALUES = {"recipe": {"lr": 0.001, "ema": True}, "model": {"name": "tnt_s", "gates": ["inner"]}}
# Two attempts at a run, in a process of its own: trackers start threads and processes.
TRACK = """
import json, sys
from pathlib import Path
from pipeline.config.machine import LoggingConfig
from pipeline.training.trackers import open_trackers
tracker, folder, values = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
config = LoggingConfig(tensorboard=False, **{tracker: "tnt"})
for first in (1, 3):
    [opened] = open_trackers(config, folder, first - 1, "0123456789ab", values)
    for step in (first, first + 1):
        opened.add(step, {"train/loss": 1.0 / step})
    opened.close()
"""


def track(tracker, folder, **environment):
    words = [sys.executable, "-c", TRACK, tracker, folder, json.dumps(VALUES)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def installed(package):
    return pytest.importorskip(package, reason=f"pip install -e '.[trackers]' installs {package}")


def test_tensorboard_shows_the_settings_beside_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    [tracker] = open_trackers(LoggingConfig(), tmp_path, 0, "0123456789ab", VALUES)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    shown = metadata.parse_session_start_info_plugin_data(content).hparams
    assert shown["recipe.lr"].number_value == 0.001
    assert shown["recipe.ema"].bool_value is True
    assert (shown["model.name"].string_value, shown["model.gates"].string_value) == ("tnt_s", "['inner']")


@pytest.mark.slow
def test_mlflow_has_one_run_of_both_attempts(tmp_path):
    mlflow = installed("mlflow")
    track("mlflow", tmp_path, MLFLOW_ALLOW_FILE_STORE="true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient((tmp_path / "mlflow").as_uri())
    [experiment] = client.search_experiments(filter_string="name = 'tnt'")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.params["recipe.lr"] == "0.001"
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(step, 1 / step) for step in (1, 2, 3, 4)]


@pytest.mark.slow
def test_trackio_has_one_run_of_both_attempts(tmp_path):
    installed("trackio")
    track("trackio", tmp_path, TRACKIO_DIR=str(tmp_path))
    read = "import trackio; [run] = trackio.Api().runs('tnt'); print(len(run.history()), run.config)"
    env = os.environ | {"TRACKIO_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", read], env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("4 "), done.stderr
    assert "'recipe.lr': 0.001" in done.stdout


@pytest.mark.slow
def test_weights_and_biases_keeps_its_files_without_a_net(tmp_path):
    installed("wandb")
    track("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    kept = list(tmp_path.glob("wandb/offline-run-*-0123456789ab/*.wandb"))
    assert len(kept) == 2
    assert all(b"train/loss" in path.read_bytes() for path in kept)


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "trackio"])
def test_one_that_is_not_installed_is_said(tmp_path, monkeypatch, tracker):
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(UserError, match=f"logging.{tracker}=tnt needs a package .* pip install {tracker}"):
        open_trackers(LoggingConfig(tensorboard=False, **{tracker: "tnt"}), tmp_path, 0, "0" * 12, VALUES)
