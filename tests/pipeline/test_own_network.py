"""The page docs/own-network.md as it is written: two files and two commands, from a network to a verdict."""

import contextlib
import csv
import io
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

from ablations import report
from pipeline import evaluate, launch
from pipeline.launching import snapshot
from tests.pipeline.ranks import ROOT
from tnt import export, predict
from tnt.own.files import find

PAGE = (ROOT / "docs" / "own-network.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, flags=re.S))
[COMMANDS] = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)
SHORT = ("recipe.epochs=1", "recipe.warmup_epochs=0", "logging.tensorboard=false", "cluster=local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, warm_local_runs, shards):
    """A working directory with the page's files, in which its two commands were given."""
    folder = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    launching, reporting = (line.split()[1:] for line in COMMANDS.splitlines())
    assert (launching[0], reporting[0]) == ("pipeline/launch.py", "ablations/report.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert launch.main([*launching[1:], *SHORT, f"data.root={shards}"]) == 0
        assert report.main([*reporting[1:], "--records", "results/records"]) == 0
        yield folder
    sys.modules.pop("mixer", None)
    sys.modules.pop("ablations.mixing", None)


def test_the_users_part_is_short():
    assert set(FILES) == {"mixer.py", "ablations/mixing.py"}
    assert sum(len([line for line in text.splitlines() if line.strip()]) for text in FILES.values()) < 40


@pytest.mark.slow
def test_from_a_network_to_a_verdict(folder):
    [path] = (folder / "results" / "tables" / "demo").glob("mixing--*recipe.epochs=1*-effects.csv")
    effects = list(csv.DictReader(path.open()))
    assert len(effects) == 3
    assert all(effect["verdict"] not in ("", "not run") for effect in effects)
    text = next(path.parent.glob("mixing--*.md")).read_text()
    assert all(label in text for label in ("Mixer", "Mixer, nothing mixed", "TNT-Ti", "PyramidTNT-Ti"))


@pytest.mark.slow
def test_what_it_left_is_measured_used_and_exported(folder, capsys):
    [run] = [
        path for path in (folder / "runs").glob("*") if "mix: true" in (path / "config.yaml").read_text()
    ]
    evaluate.main([f"run={run.name}"])
    assert re.search(r"top-1 [\d.]+ %", capsys.readouterr().out)
    Image.new("RGB", (60, 60)).save(folder / "a.png")
    named = ["--weights", str(run), "--model", "mixer:Mixer"]
    assert predict.main(["a.png", *named, "--top", "1", "--format", "json"]) == 0
    assert '"label"' in capsys.readouterr().out
    assert predict.main(["a.png", "--weights", str(run)]) == 2  # nobody has named the module
    assert export.main(["mixer.pt2", "--to", "torch-export", *named]) == 0
    program = torch.export.load(folder / "mixer.pt2").module()
    assert program(torch.zeros(2, 3, 48, 48)).shape == (2, 10)


@pytest.mark.slow
def test_the_plan_counts_it_and_loads_no_torch(folder):
    program = (
        "import sys; from pipeline import launch; launch.main(['model=mixer:Mixer', 'recipe.drop_path=0', "
        "'scale=demo', 'action=plan', 'fresh=false', 'seeds=7']); print('torch' in sys.modules)"
    )
    env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stdout + done.stderr


def test_a_job_gets_a_copy_of_its_file(tmp_path, monkeypatch):
    (tmp_path / "mixer.py").write_text(FILES["mixer.py"])
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stderr(io.StringIO()):
        kept = snapshot.take(tmp_path / "runs", own=[find("mixer:Mixer")])
    (tmp_path / "mixer.py").write_text("edited")
    monkeypatch.chdir(kept)
    assert find("mixer:Mixer").folder == kept
    assert (kept / "mixer.py").read_text() == FILES["mixer.py"]
