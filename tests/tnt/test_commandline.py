import argparse
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.leases import Leases
from tnt import weights
from tnt.commandline import add_model_options, choose_model, run


def fails_with(error: BaseException) -> int:
    def work() -> int:
        raise error

    return run("tnt.x", work)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "tnt.x: interrupted"),
        (ValueError("wrong\nhere"), 2, "tnt.x: wrong here"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 2, "x.png"),
        (ModuleNotFoundError("no", name="onnx"), 2, "onnx is needed for this: pip install onnx"),
        (torch.OutOfMemoryError("CUDA"), 2, "give a smaller --batch"),
    ],
)
def test_what_a_user_can_cause_ends_in_one_line(capsys, error, status, says):
    assert fails_with(error) == status
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1


def test_a_mistake_of_ours_keeps_its_stack_trace():
    with pytest.raises(AssertionError):
        fails_with(AssertionError("invariant"))


@pytest.mark.slow
def test_interrupting_a_command_leaves_one_line(tmp_path):
    """The command is at work, waiting for the image, when the signal comes."""
    (tmp_path / "x.png").touch()
    leases = Leases([tmp_path / "x.png"])
    command = [sys.executable, "-m", "tnt.predict", str(tmp_path / "x.png"), "--random-weights"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert leases.asked.wait(60)
        process.send_signal(signal.SIGINT)
        leases.let_go()
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.splitlines()[1:] == ["tnt.predict: interrupted"]


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(tmp_path, tiny):
    (tmp_path / "x.png").write_text("damaged")
    weights.save(tiny(), tmp_path / "w.safetensors")
    command = f"{sys.executable} -m tnt.predict {tmp_path} --weights {tmp_path}/w.safetensors --format csv"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command.split(), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == 1
    assert "BrokenPipe" not in done.stderr


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    return parser.parse_args(arguments)


def test_the_network_is_that_of_the_weights_whatever_its_variant(tiny, tmp_path):
    model = tiny(se="outer")
    weights.save(model, tmp_path / "model.safetensors")
    chosen = choose_model(options("--weights", str(tmp_path), "--size", "32"))
    assert chosen.model.config == model.config.replace(image_size=32)
    assert not chosen.random


def test_heads_that_a_file_does_not_tell_are_said_to_be_assumed(tiny, tmp_path, capsys):
    weights.save(tiny(patch_dim=64, word_dim=4, outer_heads=1, inner_heads=4), tmp_path / "w.pth")
    choose_model(options("--weights", str(tmp_path / "w.pth")))
    assert "1 outer and 4 inner heads are assumed" in capsys.readouterr().err


def test_timms_format_as_we_write_it_keeps_the_heads(tmp_path):
    import tnt

    model = tnt.create_model("tnt_s", depth=1, inner_heads=2)
    weights.save(model, tmp_path / "w.safetensors", "timm")
    assert weights.read(tmp_path / "w.safetensors").config.inner_heads == 2
    with pytest.raises(ValueError, match="inner_heads=2, not 4"):
        tnt.create_model("tnt_s", depth=1, weights=tmp_path / "w.safetensors")
