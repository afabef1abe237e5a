"""The directory of a run, and the name of each file in it; other modules take the names from here.

runs/<id>/
  config.yaml         its config
  run.json            which science and which data it is of
  lease               locked while a trainer is alive
  state.json          how far it has come, at what rate, and who trains it
  attempts.jsonl      its attempts: who, when, where, from which step, and how each ended
  metrics.jsonl       losses, norms and evaluations; the same after kills as without
  timing.jsonl        rates, waits and memory
  log.txt             what it said
  output.log          what its processes printed, where launch.py started them on this machine
  profile.txt         what took the time of the steps of engine.profile, and their trace, profile.json.gz
  tensorboard/
  checkpoints/        see checkpoints.py
  model.safetensors   the weights, once it has finished, with config.json beside them
"""

import dataclasses
from pathlib import Path

from pipeline.config import run as configs
from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.files import umask_for

CONFIG, LEASE, CHECKPOINTS = "config.yaml", "lease", "checkpoints"
WEIGHTS, WEIGHTS_CONFIG = "model.safetensors", "config.json"
ATTEMPTS, RUN, STATE = "attempts.jsonl", "run.json", "state.json"
METRICS, TIMING, LOG, OUTPUT = "metrics.jsonl", "timing.jsonl", "log.txt", "output.log"
TRACE, PROFILE = "profile.json.gz", "profile.txt"


def run_directory(config: RunConfig, id: str) -> Path:
    return Path(config.paths.runs) / id


def write_config(config: RunConfig, id: str) -> Path:
    """Write the run's config, with whole paths, unless the file already says the same; returns the file."""
    config = with_whole_paths(config)
    path = run_directory(config, id) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o777 & ~umask_for(path.parent.parent))
    if not path.exists() or path.read_bytes() != configs.yaml_text(configs.plain(config)).encode():
        configs.write(config, path)
    return path


def with_whole_paths(config: RunConfig) -> RunConfig:
    """The same config with whole paths, so that the run can be started in any directory."""
    paths = {name: _whole(value) for name, value in dataclasses.asdict(config.paths).items()}
    data, recipe = config.data, config.recipe
    init, teacher = (path if is_run_id(path) else _whole(path) for path in (recipe.init, recipe.teacher))
    return dataclasses.replace(
        config,
        paths=dataclasses.replace(config.paths, **paths),
        data=dataclasses.replace(data, root=_whole(data.root), stage=_whole(data.stage)),
        recipe=dataclasses.replace(recipe, init=init, teacher=teacher),
    )


def _whole(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
