"""The config in a run's directory starts it from anywhere."""

import os
from pathlib import Path

from pipeline.config import run as configs
from pipeline.config.identity import run_id
from pipeline.config.overrides import compose
from pipeline.runs.directory import with_whole_paths, write_config


def test_paths_are_whole_and_the_run_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").write_bytes(b"some")
    config = compose(["scale=demo", "init=weights", "paths.runs=mine", "data.stage=fast"])
    path = write_config(config, run_id(config, "data"))
    whole = path.absolute()
    assert whole == tmp_path / "mine" / run_id(config, "data") / "config.yaml"
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
    assert with_whole_paths(config) == config
    assert with_whole_paths(compose(["scale=demo"])).data.stage == ""


def test_the_config_is_written_once_and_again_where_it_was_asked_to_be_another(tmp_path):
    config = compose(["scale=demo", f"paths.runs={tmp_path}"])
    path = write_config(config, "0123456789ab")
    written = path.stat().st_ino
    assert write_config(with_whole_paths(config), "0123456789ab").stat().st_ino == written
    faster = compose(["scale=demo", f"paths.runs={tmp_path}", "engine.micro_batch=32"])
    assert configs.read(write_config(faster, "0123456789ab")).engine.micro_batch == 32
