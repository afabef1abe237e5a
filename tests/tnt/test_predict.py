import csv
import io
import json

import pytest
import torch
from PIL import Image

import tnt
import tnt.predict
from tnt import weights
from tnt.images import load_image
from tnt.predict import class_names, main, predict


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, name in enumerate(("a.png", "b.png", "c.png")):
        noise = torch.randint(0, 256, (30, 40, 3), generator=torch.Generator().manual_seed(k))
        Image.fromarray(noise.byte().numpy()).save(folder / name)
    return folder


@pytest.fixture
def saved(tiny, tmp_path):
    """A tiny model's weights in our format: a 24-pixel input, 7 classes."""
    weights.save(tiny(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_scores_are_the_softmax_of_what_the_model_says_of_the_evaluated_image(tiny, photos):
    model = tiny()
    found = predict(model, photos, top=3, batch_size=2)
    assert [prediction.image for prediction in found] == [str(photos / f"{name}.png") for name in "abc"]
    for prediction in found:
        with torch.no_grad():
            logits = model(load_image(prediction.image, 24)[None])[0]
        expected = sorted(enumerate(logits.softmax(0).tolist()), key=lambda pair: -pair[1])[:3]
        assert [score.label for score in prediction.classes] == [label for label, _ in expected]
        for score, (_, value) in zip(prediction.classes, expected, strict=True):
            assert score.score == pytest.approx(value, abs=1e-6)


def test_more_classes_than_there_are_gives_all_and_one_path_is_enough(tiny, photos):
    (only,) = predict(tiny(), photos / "b.png", top=99)
    assert [score.name for score in only.classes] == [f"class {score.label}" for score in only.classes]
    assert len(only.classes) == 7
    assert sum(score.score for score in only.classes) == pytest.approx(1)


def test_an_unreadable_image_keeps_its_place_and_says_why(tiny, photos):
    (photos / "b.png").write_text("damaged")
    found = predict(tiny(), [photos], batch_size=2)
    assert [bool(prediction.error) for prediction in found] == [False, True, False]
    assert "b.png: no image file" in found[1].error


def test_imagenets_names_stand_in_the_order_of_its_labels():
    names = class_names(tnt.create_model("tnt_ti", depth=1))
    assert len(set(names)) == 1000
    known = {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        281: "tabby",
        817: "sports car",
        999: "toilet tissue",
    }
    assert {label: names[label] for label in known} == known


def test_tnt_s_with_random_weights_answers_from_the_command_line(photos, capsys):
    assert main([str(photos / "a.png"), "--random-weights", "--format", "json", "--top", "2"]) == 0
    printed = capsys.readouterr()
    (entry,) = json.loads(printed.out)
    assert len(entry["classes"]) == 2
    assert "random" in printed.err


def test_csv_json_and_table_say_the_same(photos, saved, capsys):
    shared = [str(photos), "--weights", str(saved), "--top", "2"]
    assert main([*shared, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert main([*shared, "--format", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert main(shared) == 0
    table = capsys.readouterr().out
    assert [(row["image"], int(row["label"])) for row in rows] == [
        (entry["image"], score["label"]) for entry in entries for score in entry["classes"]
    ]
    assert all(entry["image"] in table for entry in entries)
    assert all(f"{float(row['score']):.4f}" in table for row in rows)


def test_paths_come_from_standard_input(photos, saved, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / 'c.png'}\n{photos / 'a.png'}\n"))
    assert main(["-", "--weights", str(saved), "--format", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["image"] for entry in entries] == [str(photos / "c.png"), str(photos / "a.png")]


def test_skipped_images_are_named_at_the_end_with_exit_1(photos, saved, capsys):
    (photos / "b.png").write_text("damaged")
    assert main([str(photos), str(photos / "gone.png"), "--weights", str(saved), "--format", "csv"]) == 1
    printed = capsys.readouterr()
    assert "b.png" not in printed.out
    assert "skipped" in printed.err
    assert "gone.png: no such file" in printed.err
    assert printed.err.splitlines()[-1] == "tnt.predict: 2 of 4 images were skipped"


def test_names_come_from_a_file_that_must_have_one_per_class(photos, saved, tmp_path, capsys):
    (tmp_path / "names").write_text("".join(f"kind {k}\n" for k in range(7)))
    shared = [str(photos), "--weights", str(saved), "--classes", str(tmp_path / "names")]
    assert main(shared) == 0
    assert "kind 3" in capsys.readouterr().out
    (tmp_path / "names").write_text("cat\ndog\n")
    assert main(shared) == 2
    assert "names names 2 classes, the head has 7; give one name per line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["PHOTOS"], "no weights: give --weights FILE"),
        (["PHOTOS", "--weights", "gone"], "no weights at gone"),
        (["PHOTOS", "--weights", "SAVED", "--random-weights"], "exclude each other"),
        (["PHOTOS", "--weights", "SAVED", "--model", "tnt_s"], "the model is tnt_s"),
        (["PHOTOS", "--weights", "SAVED", "--model", "tnt_x"], "unknown model 'tnt_x'"),
        (["PHOTOS", "--weights", "SAVED", "--size", "25"], "does not divide image_size=25; nearest: 24"),
        (["PHOTOS", "--batch", "0"], "argument --batch: '0' is no number from 1"),
        (["PHOTOS", "--top", "9" * 5000], "argument --top: '99999999999999999999…' is no number"),
        (["PHOTOS", "--\x1b[2J"], r"unrecognized arguments: --\x1b[2J"),
        (["PHOTOS", "--weights", "SAVED", "--device", "cuda:77"], "cannot be used"),
        (["EMPTY", "--weights", "SAVED"], "no images under"),
        (["PHOTOS", "--weights", "PHOTOS/a.png"], "damaged or no weights file"),
    ],
)
def test_wrong_use_gets_one_line_and_exit_2(photos, saved, tmp_path, capsys, arguments, says):
    (tmp_path / "empty").mkdir()
    places = {"PHOTOS": photos, "SAVED": saved, "EMPTY": tmp_path / "empty"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    try:
        status = main(arguments)
    except SystemExit as ended:  # by the parser of the command line
        status = ended.code
    assert status == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.startswith("tnt.predict: ")
    assert len(printed.err.splitlines()) == 1
    assert printed.out in ("", "[]\n")


def test_a_model_without_a_head_is_sent_to_features(tiny, photos):
    with pytest.raises(ValueError, match=r"no head .*tnt\.features"):
        predict(tiny(classes=0), photos)


def test_names_of_the_wrong_number_are_refused(tiny, photos):
    with pytest.raises(ValueError, match="2 names for a head of 7 classes"):
        predict(tiny(), photos, names=["cat", "dog"])
