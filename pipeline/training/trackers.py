"""Where curves are drawn: TensorBoard, and Weights & Biases where a config asks for it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.machine import LoggingConfig
from pipeline.errors import UserError


class Tracker(Protocol):
    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_trackers(
    config: LoggingConfig, directory: Path, step: int, id: str, values: Mapping[str, Any]
) -> list[Tracker]:
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoard(directory / "tensorboard", step))
    if config.wandb:
        trackers.append(WeightsAndBiases(config.wandb, directory, id, values))
    return trackers


class TensorBoard:
    def __init__(self, directory: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(directory))
        # Points of an earlier attempt beyond the step that this one goes on from are not shown.
        self._writer.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        points = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = self._summary(value=points)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    def __init__(self, project: str, directory: Path, id: str, values: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError(
                f"logging.wandb={project} needs a package that is not installed: pip install wandb"
            ) from None
        self._run = wandb.init(
            project=project, id=id, resume="allow", dir=str(directory), config=dict(values), save_code=False
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
