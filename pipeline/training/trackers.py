"""Where curves are drawn: TensorBoard, and the trackers that a config asks for.

Each is imported when it is asked for. Without a net, Weights & Biases keeps its files where WANDB_MODE is
offline; MLflow and trackio are on this machine unless their own variables say otherwise.
"""

import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.machine import LoggingConfig
from pipeline.config.typed import flattened
from pipeline.errors import UserError


def _imported(package: str, project: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"logging.{package}={project} needs a package that is not installed: pip install {package}"
        ) from None


class TensorBoard:
    def __init__(self, directory: Path, step: int, values: Mapping[str, Any]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from torch.utils.tensorboard import SummaryWriter

        # Points of an earlier attempt beyond the step that this one goes on from are not shown.
        self._writer = SummaryWriter(str(directory), purge_step=step + 1)
        self._writer.file_writer.add_summary(hparams_pb(values))  # type: ignore[attr-defined]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    def __init__(self, project: str, directory: Path, id: str, values: Mapping[str, Any]) -> None:
        self._run = _imported("wandb", project).init(
            project=project, id=id, resume="allow", dir=str(directory), config=dict(values), save_code=False
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    def __init__(self, experiment: str, directory: Path, id: str, values: Mapping[str, Any]) -> None:
        mlflow = _imported("mlflow", experiment)
        place = os.environ.get("MLFLOW_TRACKING_URI") or (directory / "mlflow").absolute().as_uri()
        self._metric, self._client = mlflow.entities.Metric, mlflow.MlflowClient(place)
        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        earlier = self._client.search_runs([number], f"tags.id = '{id}'")  # of another attempt
        if not earlier:
            earlier = [self._client.create_run(number, run_name=id, tags={"id": id})]
            for name, value in values.items():
                self._client.log_param(earlier[0].info.run_id, name, value)
        self._run = earlier[0].info.run_id

    def add(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        points = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=points)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class Trackio(WeightsAndBiases):
    """Once it is open, it is spoken to in the same words."""

    def __init__(self, project: str, id: str, values: Mapping[str, Any]) -> None:
        trackio = _imported("trackio", project)
        self._run = trackio.init(project=project, name=id, resume="allow", config=dict(values))


Tracker = TensorBoard | WeightsAndBiases | MLflow


def open_trackers(
    config: LoggingConfig, directory: Path, step: int, id: str, values: Mapping[str, Any]
) -> list[Tracker]:
    """`values`: the settings of the run, which each of them shows beside the curves."""
    flat = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in flattened(values)
    }
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoard(directory / "tensorboard", step, flat))
    if config.wandb:
        trackers.append(WeightsAndBiases(config.wandb, directory, id, flat))
    if config.mlflow:
        trackers.append(MLflow(config.mlflow, directory, id, flat))
    if config.trackio:
        trackers.append(Trackio(config.trackio, id, flat))
    return trackers
