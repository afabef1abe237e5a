"""What a run was asked for starts it from anywhere."""

import os
from pathlib import Path

from pipeline.config import run as configs
from pipeline.config.identity import run_id
from pipeline.config.overrides import compose
from pipeline.launching import asked
from pipeline.launching.plan import Wanted


def test_paths_are_whole_and_the_run_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").write_bytes(b"some")
    config = compose(["scale=demo", "init=weights", "paths.runs=mine", "data.stage=fast"])
    path = asked.write(Wanted(config, run_id(config, "data")))
    whole = path.absolute()
    assert whole == tmp_path / "mine" / run_id(config, "data") / "asked.yaml"
    monkeypatch.chdir("/")
    read = configs.read(whole)
    assert run_id(read, "data") == whole.parent.name
    for value in (*vars(read.paths).values(), read.data.root, read.data.stage, read.recipe.init):
        assert Path(value).is_relative_to(tmp_path)
    assert os.stat(whole.parent).st_mode & 0o077 == 0


def test_the_id_of_a_run_to_start_from_stays_an_id():
    config = compose(
        ["scale=demo", "init=0123456789ab", "paths.runs=/a", "paths.data=/b", "paths.records=/c"]
    )
    assert asked.absolute(config) == config
    assert asked.absolute(compose(["scale=demo"])).data.stage == ""
