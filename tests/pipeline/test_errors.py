import os
import shutil
import subprocess
import sys

import pytest

from pipeline.errors import UserError, WorkFailed, command, unknown_name
from tests.sources import ROOT


def leave(main, **options):
    with pytest.raises(SystemExit) as left:
        command(main, ["word"], **options)
    return left.value.code


@pytest.mark.parametrize(("error", "status"), [(UserError("no such file"), 2), (WorkFailed("disk full"), 1)])
def test_a_users_error_is_one_line_and_its_own_status(error, status, capsys):
    def main(argv):
        raise error

    assert leave(main) == status
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(("name", "said"), [("pandas", "error: pandas is needed"), ("tnt.gone", "")])
def test_a_package_that_is_missing_is_named_unless_it_is_ours(name, said, capsys):
    def main(argv):
        raise ModuleNotFoundError("no", name=name)

    if said:
        assert leave(main) == 2
        assert capsys.readouterr().err.startswith(said)
    else:
        with pytest.raises(ModuleNotFoundError):
            command(main, [])


@pytest.mark.parametrize(
    "script", ["train.py", "evaluate.py", "audit.py", "launch.py", "shards.py", "../ablations/report.py"]
)
def test_where_nothing_is_installed_a_script_says_so(script):
    """`-S`: without the packages of this environment."""
    path = ROOT / "pipeline" / script
    command = [sys.executable, "-S", "-B", path]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: not installed for this Python")
    assert done.stderr.count("\n") == 1


def test_main_gets_the_arguments_and_decides_the_status():
    assert leave(lambda argv: 1 if list(argv) == ["word"] else 7) == 1
    assert leave(lambda argv: None) == 0


def test_ctrl_c_is_one_line_and_130(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert leave(main, stopped="the same command continues") == 130
    assert capsys.readouterr().err.strip() == "the same command continues"


def test_a_fault_of_ours_keeps_its_trace():
    def main(argv):
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError):
        command(main, [])


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest():
    message = str(unknown_name("source", "imagnet", ["imagenet", "cifar10"]))
    assert message == "unknown source 'imagnet' (did you mean 'imagenet'?): valid are imagenet, cifar10"
    assert "did you mean" not in str(unknown_name("source", "xyz", ["imagenet", "cifar10"]))


def test_output_into_a_closed_pipe_leaves_no_trace():
    program = "from pipeline.errors import command\ncommand(lambda argv: print('line\\n' * 100_000))"
    environment = {"PROGRAM": program, "PYTHONPATH": ":".join(sys.path)}
    line = f"'{sys.executable}' -c \"$PROGRAM\" | head -1"
    ran = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True)
    assert ran.stdout == "line\n"
    assert ran.stderr == ""


@pytest.fixture
def latin1(tmp_path):
    """The environment of a shell with a German locale of old."""
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", tmp_path / "de_DE.ISO-8859-1"])
    assert made.returncode == 0
    return os.environ | {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.mark.skipif(not shutil.which("localedef"), reason="no localedef: all locales here are UTF-8")
def test_in_a_latin_1_shell_names_are_utf_8_and_what_it_cannot_show_is_replaced(latin1, tmp_path):
    script = tmp_path / "say.py"
    script.write_text(
        "import os, sys; from pipeline.errors import command\n"
        "command(lambda argv: print(argv[0].encode() == os.fsencode(argv[0]), argv[0]))\n"
    )
    done = subprocess.run([sys.executable, script, "größe–1"], env=latin1, capture_output=True)
    assert done.stdout == "True größe?1\n".encode("latin-1"), done.stderr
