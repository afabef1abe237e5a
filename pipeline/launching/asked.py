"""What a run was asked for, as a file that starts it from anywhere: `runs/<id>/asked.yaml`."""

import dataclasses
from pathlib import Path

from pipeline.config import run as configs
from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.launching.plan import Wanted
from pipeline.runs.directory import run_directory

ASKED = "asked.yaml"


def write(run: Wanted) -> Path:
    """Its config with whole paths, in its directory."""
    config = absolute(run.config)
    directory = run_directory(config, run.id)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    configs.write(config, directory / ASKED)
    return directory / ASKED


def absolute(config: RunConfig) -> RunConfig:
    """The same run, whatever directory it is started in."""
    paths = {name: _whole(value) for name, value in dataclasses.asdict(config.paths).items()}
    data, init = config.data, config.recipe.init
    return dataclasses.replace(
        config,
        paths=dataclasses.replace(config.paths, **paths),
        data=dataclasses.replace(data, root=_whole(data.root), stage=_whole(data.stage)),
        recipe=dataclasses.replace(config.recipe, init=init if is_run_id(init) else _whole(init)),
    )


def _whole(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
