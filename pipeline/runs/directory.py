"""The directory of a run, and the name of each file in it; nobody else names them.

runs/<id>/
  config.yaml         what it was asked to be
  run.json            which science and which data it is of
  lease               locked while a trainer is alive
  attempts.jsonl      its starts: who, when, where, at which step
  metrics.jsonl       losses, norms and evaluations, the same however often it was killed
  timing.jsonl        rates, waits and memory
  log.txt             what it said
  output.log          what its processes printed, where launch.py started them on this machine
  tensorboard/
  checkpoints/        see checkpoints.py
  model.safetensors   the weights, once it has finished, with config.json beside them
"""

from pathlib import Path

from pipeline.config.run import RunConfig

CONFIG, LEASE, CHECKPOINTS = "config.yaml", "lease", "checkpoints"
WEIGHTS, WEIGHTS_CONFIG = "model.safetensors", "config.json"

ATTEMPTS, RUN = "attempts.jsonl", "run.json"

METRICS, TIMING, LOG = "metrics.jsonl", "timing.jsonl", "log.txt"

OUTPUT = "output.log"  # what the processes of a run printed, where launch.py started them on this machine


def run_directory(config: RunConfig, id: str) -> Path:
    return Path(config.paths.runs) / id
