"""A network of the user's own, as a job of two ranks: it runs from the copy of its file."""

import json
import re

import pytest

from pipeline import launch
from tests.pipeline.ranks import ROOT
from tests.slurm.laboratory import PATIENCE


@pytest.mark.nightly
def test_two_ranks_train_a_network_of_ones_own_whose_file_is_edited_in_the_queue(
    slurm, ask, closed, tmp_path, monkeypatch, capsys
):
    page = (ROOT / "docs" / "own-network.md").read_text()
    text = re.search(r"```python\n(# mixer.py.*?)```", page, flags=re.S)[1]
    (tmp_path / "mixer.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    settings = [word for word in ask.settings if not word.startswith("model.")]
    ranks = ("cluster.gpus=2", "cluster.gpu_request=none", "engine.micro_batch=48", "engine.zero_stage=2")
    words = (*settings, *ranks, "model=mixer:Mixer", "recipe.drop_path=0")
    assert launch.main([*words, "json=true"]) == 0
    [run] = json.loads(capsys.readouterr().out)["submitted"]
    (tmp_path / "mixer.py").write_text("raise SystemExit('edited')\n")
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    path = tmp_path / f"records/{run['id']}.json"
    slurm.wait(path.exists, PATIENCE, "a record")
    record = json.loads(path.read_text())
    assert (record["world"], record["science"]["model"]["name"]) == (2, "mixer:Mixer")
    (tmp_path / "mixer.py").write_text(text)
    assert launch.main([*words, "action=status", "json=true"]) == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)["runs"]] == ["done"]
