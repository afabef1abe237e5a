"""The page docs/data.md as it is written: a folder of one's own, packed, described, trained on."""

import re

import pytest
from PIL import Image

from pipeline import shards as command
from pipeline.config.identity import run_id
from pipeline.config.overrides import compose
from pipeline.data import dataset
from pipeline.errors import UserError
from tests.pipeline.ranks import DEADLINE, ROOT, start

PAGE = (ROOT / "docs" / "data.md").read_text()
[(NAME, FILE)] = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, flags=re.S)
SMALL = ("model=tnt_ti", "model.depth=1", "data.image_size=32", "recipe.epochs=1", "recipe.warmup_epochs=0",
         "recipe.global_batch=32", "recipe.repeats=1", "data.loading.workers=0", "engine.threads=1",
         "logging.tensorboard=false")  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the page's file and its set, packed by the page's command."""
    monkeypatch.chdir(tmp_path)
    for split, count in {"train": 32, "validation": 16}.items():
        for place, name in enumerate(("crow", "gull")):
            images = tmp_path / "photographs" / split / name
            images.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (200 * place, number, 90)).save(images / f"{number}.png")
    (tmp_path / NAME).write_text(FILE)
    [line] = re.findall(r"python pipeline/shards.py (make folder .*?)  ", PAGE)
    command.main([*line.split(), "--workers", "1"])
    return tmp_path


def test_it_has_ten_lines():
    assert len(FILE.splitlines()) <= 10


@pytest.mark.slow
def test_a_folder_is_packed_and_trained_on(folder):
    process = start([ROOT / "pipeline/train.py", f"data={NAME}", *SMALL], cwd=folder)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    [record] = (folder / "results" / "records").glob("*.json")
    assert '"name": "birds"' in record.read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[crow, gull]", "[gull, crow]", "have 'crow' where a class is 'gull'"),
        ("train_images: 64", "train_images: 65", "hold 64 images, not 65"),
        ("classes: 2", "classes: 3", "data.class_names has 2 names of 3 classes"),
        ("name: birds", "", "must say name, root and classes"),
        ("flip", "flop", "unknown setting of data.augmentation 'flop' (did you mean 'flip'?)"),
        ("classes: 2", "classes: [", "birds.yaml is damaged"),
        ("classes: 2", "classes: two", "classes='two' must be a whole number"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, old, new, message):
    (folder / NAME).write_text(FILE.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        dataset.open_split(compose([f"data={NAME}"]).data, "train")
    assert "\n" not in str(caught.value)


def test_what_only_checks_is_in_no_id(folder):
    before = run_id(compose([f"data={NAME}"]), "f" * 64)
    (folder / NAME).write_text(FILE.replace("train_images: 64", "").replace("class_names", "# "))
    assert run_id(compose([f"data={NAME}"]), "f" * 64) == before
