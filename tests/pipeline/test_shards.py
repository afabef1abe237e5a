"""The command line, in real processes."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.packing.pack import Packing, plan_shards
from pipeline.data.packing.sources.folder import folder
from pipeline.shards import main
from tests.leases import Leases
from tests.pipeline.pictures import plant_pictures

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipeline/shards.py"


def start(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes, **options)


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def hashes(root):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.iterdir()}


class Halted:
    """A `make` that stands still in its fourth shard: one of its files is a pipe without a writer."""

    def __init__(self, tmp_path, **options):
        pictures, self.out, self.whole = tmp_path / "pictures", tmp_path / "set", tmp_path / "whole"
        plant_pictures(pictures)
        self.command = ["make", "folder", str(pictures), str(self.out), "--samples-per-shard", "5"]
        self.command += ["--workers", "1"]
        assert main([*self.command[:3], str(self.whole), *self.command[4:]]) == 0
        source = folder(pictures)
        plan = plan_shards(source, Packing(samples_per_shard=5))
        self.before = [shard.name for shard in plan.shards[:3]]
        key = source.splits[plan.shards[3].split].key[plan.shards[3].samples[2]].decode()
        (self.file,) = pictures.glob(f"train/{key}.*")
        leases = Leases([self.file])
        self.let_go = leases.let_go
        self.process = start(*self.command, **options)
        assert leases.asked.wait(60)  # the worker reads the file

    def check_that_the_same_command_completes(self):
        finished = {name: (self.out / ".make" / name).stat() for name in self.before}
        assert list(self.out.glob("*.tar")) == []
        self.let_go()
        assert main(self.command) == 0
        assert hashes(self.out) == hashes(self.whole)
        for name, stat in finished.items():
            now = (self.out / name).stat()
            assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


@pytest.mark.slow
def test_a_make_that_was_killed_continues_to_the_same_bytes(tmp_path):
    halted = Halted(tmp_path)
    os.killpg(halted.process.pid, signal.SIGKILL)
    finish(halted.process)
    halted.check_that_the_same_command_completes()


@pytest.mark.slow
def test_workers_end_when_only_their_parent_is_killed(tmp_path):
    halted = Halted(tmp_path)
    halted.process.kill()
    halted.let_go()
    # Its output ends when the last process that holds it has ended.
    assert finish(halted.process)[0] == -signal.SIGKILL
    halted.check_that_the_same_command_completes()


@pytest.mark.slow
def test_ctrl_c_is_one_line_that_says_that_the_same_command_continues(tmp_path):
    halted = Halted(tmp_path)
    halted.process.send_signal(signal.SIGINT)
    status, out, err = finish(halted.process)
    assert status == 130
    assert (out, err.strip()) == ("", "stopped; the same command continues where it stopped")
    halted.check_that_the_same_command_completes()


@pytest.mark.slow
def test_a_second_make_of_the_same_set_is_refused_while_the_first_runs(tmp_path):
    halted = Halted(tmp_path)
    status, _, err = finish(start("make", "digits", halted.out))
    assert status == 2
    assert "another command is writing" in err
    halted.let_go()
    assert finish(halted.process)[0] == 0
    assert hashes(halted.out) == hashes(halted.whole)


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(tmp_path):
    import resource

    plant_pictures(tmp_path / "pictures")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    status, _, err = finish(
        start("make", "folder", tmp_path / "pictures", tmp_path / "set", preexec_fn=limit)
    )
    assert status == 1
    assert err.count("\n") == 1
    assert "File too large" in err
    assert sorted(p.name for p in (tmp_path / "set/.make").iterdir()) == ["lock", "plan.json"]


@pytest.mark.slow
def test_digits_from_nothing_to_a_verified_set_and_back(tmp_path, capsys):
    out = tmp_path / "digits"
    make = ["make", "digits", str(out), *["--samples-per-shard", "300", "--format", "png", "--size", "16"]]
    assert main(make) == 0
    assert main(["verify", str(out)]) == 0
    assert main(["info", str(out), "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "packed 1,437 train images in 5 shards" in said
    assert "every byte is the same as when it was packed" in said
    assert "1,437 PNG" in said
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    shard = out / "digits-train-0002.tar"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    assert main(["verify", str(out)]) == 1
    assert "digits-train-0002.tar: " in capsys.readouterr().out
    shard.unlink()
    assert main(make) == 0
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["mkae"], ["unknown command 'mkae' (did you mean 'make'?)", "verify, info"]),
        (["make", "imagnet", "a", "b"], ["unknown kind of source", "did you mean 'imagenet'?", "cifar100"]),
        (["make", "digits", "out", "--sed", "3"], ["unknown option '--sed'", "did you mean '--seed'?"]),
        (["make", "digits", "out", "--seed", "x"], ["'x' is no number from 0"]),
        (["make", "digits", "out", "--workers", "0"], ["'0' is no number from 1"]),
        (["make", "digits", "out", "--format", "bmp"], ["unknown format 'bmp'", "jpg, png"]),
        (["make", "digits", "out", "--size", "4"], ["size 4"]),
        (["make", "digits", "a", "b"], ["make digits takes OUT"]),
        (["make", "pets", "a"], ["make pets takes SOURCE OUT"]),
        (["make", "pets", "a", "b", "--size", "9"], ["are for digits"]),
        (["make", "pets", "nowhere", "b"], ["nowhere lacks images.tar.gz"]),
        (["make", "imagenet", "nowhere", "b"], ["nowhere is not a directory"]),
        (["verify"], ["the following arguments are required: root", "usage: shards.py verify DIR"]),
        (["verify", "nowhere"], ["nowhere is not a directory"]),
        (["index", "."], ["holds no .tar files"]),
    ],
)
def test_a_mistake_is_one_line_with_the_cure(arguments, parts, tmp_path, monkeypatch):
    from pipeline.errors import UserError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        main(arguments)
    assert raised.value.exit_status == 2
    assert "\n" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value)


def test_a_mistake_at_the_shell_has_no_trace_and_status_2(tmp_path):
    status, out, err = finish(start("make", "digits", tmp_path / "x", "--sed", "3"))
    assert (status, out) == (2, "")
    assert err.startswith("error: unknown option '--sed'")
    assert err.count("\n") == 1


def test_no_arguments_print_the_help(capsys):
    assert main([]) == 0
    assert "make KIND [SOURCE] OUT" in capsys.readouterr().out
