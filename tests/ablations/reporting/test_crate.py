"""A table's RO-Crate, read back with the package that others read it with."""

import hashlib

import numpy as np
import pytest
from rocrate.rocrate import ROCrate

from ablations import report
from pipeline.config import run as configs
from pipeline.config.identity import run_id
from pipeline.errors import UserError
from pipeline.runs import answers, audits
from pipeline.runs.records import record_path
from tests.ablations.recorded import write_evaluation

TOP_FIVE = np.zeros(360, answers.row_type(10))


@pytest.fixture
def packed(shelf):
    """Table 7 of three runs at the demo's scale: one with its answers, one with others', one without."""
    folder, demo = shelf.folder, ["scale=demo"]
    kept = shelf.folder.parent / "kept.npz"
    answers.publish({"ema": TOP_FIVE}, kept)
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    told = [
        shelf.add("patch_size", "4", 97.0, seed, overrides=demo, answers_sha256=digest) for seed in range(3)
    ]
    shelf.add("inner_heads", "8", 96.0, overrides=demo)
    (folder.parent / "answers").mkdir()
    kept.rename(answers.path_of(folder, told[0].id))
    audits.publish(audits.path_of(folder, told[0].id), [])
    answers.path_of(folder, told[1].id).write_bytes(b"of another run")

    def pack(*arguments: str) -> ROCrate:
        path = folder.parent / "crate.zip"
        where = ["--records", str(folder), "--results", str(folder.parent), "--scale", "demo"]
        assert report.main([*where, "--crate", str(path), *arguments]) == 0
        return ROCrate(path)

    return told, pack


def test_a_crate_holds_the_tables_records_settings_and_answers(packed, shelf, capsys):
    told, pack = packed
    crate = pack("--table", "7")
    with_answers, *without = told
    names = {entity.id for entity in crate.data_entities}
    assert {each for each in names if each.startswith("records/")} == {f"records/{r.id}.json" for r in told}
    assert {each for each in names if each.startswith("answers/")} == {f"answers/{with_answers.id}.npz"}
    assert {f"tables/table7{ending}" for ending in (".md", ".csv", ".tex", "-effects.csv")} <= names
    assert f"audits/{with_answers.id}.json" in names
    assert not [name for name in names if "table6" in name]
    assert f"without the answers of {', '.join(each.id for each in without)}" in capsys.readouterr().out
    for entity in crate.data_entities:
        if "sha256" in entity:
            assert hashlib.sha256((crate.source / entity.id).read_bytes()).hexdigest() == entity["sha256"]
    record = (crate.source / f"records/{with_answers.id}.json").read_bytes()
    assert record == record_path(shelf.folder, with_answers.id).read_bytes()


def test_a_crate_names_the_code_and_the_data_of_each_run(packed):
    told, pack = packed
    crate = pack("--table", "7")
    for record in told:
        action = crate.get(f"#run-{record.id}")
        assert action["instrument"]["version"] == record.commit
        used = {entity.type: entity for entity in action["object"]}
        assert used["Dataset"]["identifier"] == record.fingerprint
        config = configs.read(crate.source / used["File"].id)
        assert run_id(config, record.fingerprint) == record.id
        results = action["result"]
        names = [each.id for each in (results if isinstance(results, list) else [results])]
        assert names[0] == f"records/{record.id}.json"


def test_all_tables_go_into_one_crate(packed):
    _, pack = packed
    crate = pack()
    assert len(crate.get_by_type("CreateAction")) == 4


def test_nothing_to_pack_and_a_name_that_is_no_archives_are_refused(packed):
    _, pack = packed
    with pytest.raises(UserError, match="no runs stand behind Table 5"):
        pack("--scale", "paper", "--table", "5")
    with pytest.raises(UserError, match=r"ends in \.zip"):
        report.main(["--crate", "folder"])


def test_the_run_whose_weights_another_began_with_comes_along(shelf):
    first = shelf.add("imagenet", "tnt_s", 81.5)
    shelf.add("transfer", "tnt_s-cifar10", 98.7, init=first.id)
    path = shelf.folder.parent / "crate.zip"
    where = ["--records", str(shelf.folder), "--results", str(shelf.folder.parent)]
    assert report.main([*where, "--table", "8", "--crate", str(path)]) == 0
    crate = ROCrate(path)
    assert f"records/{first.id}.json" in {entity.id for entity in crate.data_entities}


def test_the_crate_of_table_4_has_the_weights_of_others_that_were_measured(shelf):
    shelf.add("imagenet", "tnt_s", 81.3)
    write_evaluation(shelf.folder.parent / "evaluations", "resnet50.tv_in1k", "imagenet", 76.156)
    path = shelf.folder.parent / "crate.zip"
    where = ["--records", str(shelf.folder), "--results", str(shelf.folder.parent)]
    assert report.main([*where, "--table", "4", "--crate", str(path)]) == 0
    names = {entity.id for entity in ROCrate(path).data_entities}
    assert "evaluations/imagenet-resnet50.tv_in1k.json" in names
