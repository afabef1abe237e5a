"""Runs inside of an image: Apptainer's (a file, or docker://…), or one of Pyxis and Enroot (a .sqsh file).

What a run reads and writes is mounted at its own path. Its job is watched from outside of the image.
"""

import os
from pathlib import Path

from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.launching.slurm.resources import on_gpus
from pipeline.runs.provenance import ROOT

ENROOT = ".sqsh"
PYTHON = "python3"  # the image's


def options(config: RunConfig) -> list[str]:
    """Of srun, which Pyxis adds to it."""
    image = config.cluster.container
    if not image.endswith(ENROOT):
        return []
    mounts = ",".join(f"{path}:{path}" for path in mounted(config))
    return [f"--container-image={image}", f"--container-mounts={mounts}", f"--container-workdir={Path.cwd()}"]


def command(config: RunConfig) -> list[str]:
    """What a rank's command is to be started by."""
    image = config.cluster.container
    if not image or image.endswith(ENROOT):
        return []
    binds = [word for path in mounted(config) for word in ("--bind", path)]
    nvidia = ["--nv"] if on_gpus(config) else []
    return ["apptainer", "exec", *nvidia, *binds, "--pwd", str(Path.cwd()), image]


def variables(config: RunConfig) -> dict[str, str]:
    return {"PYTHON": PYTHON} if config.cluster.container else {}


def mounted(config: RunConfig) -> list[str]:
    """The folders that a run reads and writes, and that of the code; none that lies in another of them."""
    init = config.recipe.init
    wanted = [str(ROOT), config.paths.runs, config.paths.records, config.data.root, config.data.stage]
    wanted += [os.path.dirname(init)] if init and not is_run_id(init) else []
    found = sorted({str(Path(path).absolute()) for path in wanted if path})
    return [path for path in found if not any(str(up) in found for up in Path(path).parents)]
