"""Weights that lie about themselves."""

import json
import pickle
import zipfile

import pytest
import torch

import tnt
from tests.faults.limits import tnt_refusal
from tnt import weights
from tnt.weights.tensors import write_tensors

TINY = {
    "image_size": 16, "patch_size": 8, "word_edge": 4, "depth": 2, "patch_dim": 8, "word_dim": 4,
    "outer_heads": 2, "inner_heads": 2, "classes": 3,
}  # fmt: skip
DEEP = '{"a":' * 900 + "1" + "}" * 900


@pytest.fixture(scope="module")
def state() -> dict:
    return tnt.TNT(tnt.TNTConfig(**TINY)).state_dict()


@pytest.mark.parametrize(
    "config",
    [
        *(
            "[]",
            '"x"',
            "null",
            "5",
            "",
            "{",
            DEEP,
            "[" * 100_000,
            '{"depth": ' + "9" * 5000 + "}",
            '{"a\\u001b": 1}',
        ),
        *(
            json.dumps(TINY | change)
            for change in (
                {"depth": "x"},
                {"depth": 10**8},
                {"depth": None},
                {"depth": 2.5},
                {"image_size": 16_000_000},
                {"patch_size": 0},
                {"patch_size": -8},
                {"word_edge": 3},
                {"outer_heads": 0},
                {"outer_heads": 3},
                {"channels": None},
                {"channels": [3]},
                {"se": "\x1b[2J"},
                {"form": {}},
                {"mlp_ratio": True},
                {"drop_path": 1e400},
                {"new": 1},
            )
        ),
    ],
)
def test_a_config_that_is_none(config, state, tmp_path, capsys):
    write_tensors(state, {"format": "pt", "tnt_config": config}, tmp_path / "w.safetensors")
    assert "w.safetensors" in tnt_refusal(lambda: weights.read(tmp_path / "w.safetensors"), capsys)


TENSORS = {
    "a scalar": torch.tensor(1.0),
    "no rows": torch.zeros(0, 8),
    "no columns": torch.zeros(8, 0),
    "one axis": torch.zeros(7),
    "six axes": torch.zeros(1, 1, 1, 1, 1, 1),
    "whole numbers": torch.zeros(8, 8, dtype=torch.int64),
    "truths": torch.zeros(8, 8, dtype=torch.bool),
    "complex": torch.zeros(8, 8, dtype=torch.complex64),
    "meta": torch.zeros(8, 8, device="meta"),
    "sparse": torch.eye(8).to_sparse(),
    "a view of one number": torch.zeros(1).expand(10**6, 10**6),
    "text": "\x1b[2J",
    "a list": [1.0],
    "nothing": None,
}
NAMES = (
    "class_token",
    "stem.conv.weight",
    "to_patch.proj.weight",
    "patch_position",
    "word_position",
    "blocks.0.outer.mlp.fc1.weight",
    "blocks.1.inner.attn.qkv.weight",
    "head.weight",
)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about sparse tensors
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_that_cannot_be_there(name, kind, state, tmp_path, capsys):
    torch.save(state | {name: TENSORS[kind]}, tmp_path / "w.pth")
    assert name in tnt_refusal(lambda: weights.read(tmp_path / "w.pth"), capsys)


def cycle() -> dict:
    stored: dict = {}
    stored["model"] = stored
    return stored


def nested(depth: int) -> dict:
    stored: dict = {}
    for _ in range(depth):
        stored = {"state_dict": stored, "epoch": 3}
    return stored


STORED = {
    "a cycle": lambda state: cycle(),
    "a cycle of lists": lambda state: {"model": [cycle()]},
    "ten dicts in each other": lambda state: nested(10),
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "10⁸ blocks": lambda state: state | {"blocks.99999999.inner.norm1.weight": torch.zeros(4)},
    "a block without a number": lambda state: state | {"blocks.\x1b.inner.norm1.weight": torch.zeros(4)},
    "a name that commands the terminal": lambda state: state | {"\x1b]0;x\x07\n\u202e": torch.zeros(4)},
    "keys that command the terminal": lambda state: {"\x1b[2J\n": 1},
    "a number": lambda state: 5,
    "text": lambda state: "\x1b[2J",
    "nothing": lambda state: {},
    "queries and values of different widths": lambda state: {
        "pixel_embed.proj.weight": torch.zeros(4, 3, 7, 7),
        "blocks.0.attn_in.qk.weight": torch.zeros(8, 4),
        "blocks.0.attn_in.v.weight": torch.zeros(4, 5),
    },
    "a square position without edges": lambda state: {
        "pixel_embed.proj.weight": torch.zeros(4, 3, 7, 7),
        "pixel_pos": torch.zeros(4),
    },
}


@pytest.mark.parametrize("what", STORED)
def test_a_checkpoint_that_is_none(what, state, tmp_path, capsys):
    torch.save(STORED[what](state), tmp_path / "w.pth")
    tnt_refusal(lambda: weights.read(tmp_path / "w.pth"), capsys)


def test_a_pickle_that_asks_for_code_with_a_hostile_name(tmp_path, capsys):
    code = b"\x80\x02cposix\x1b[2J\nsystem\x07\n)R."
    (tmp_path / "w.pth").write_bytes(code)
    tnt_refusal(lambda: weights.read(tmp_path / "w.pth"), capsys)


def test_a_zip_that_unpacks_to_more_than_it_is(state, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(100_000_000))
    assert "would unpack" in tnt_refusal(lambda: weights.read(tmp_path / "w.pth"), capsys)


def test_safetensors_whose_header_claims_more_than_the_file_has(tmp_path, capsys):
    header = json.dumps(
        {"class_token": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    )
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    tnt_refusal(lambda: weights.read(tmp_path / "w.safetensors"), capsys)
