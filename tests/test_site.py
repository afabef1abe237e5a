"""The site: each setting is explained, each page is there, and no link is broken."""

import os
import subprocess
import sys

import pytest

from docs import reference
from tests.sources import ROOT


def test_every_setting_says_what_it_means():
    assert [name for name, _, _, meaning in reference.settings() if not meaning] == []


def test_a_comment_above_a_field_and_one_behind_it_are_read():
    meanings = {name: meaning for name, _, _, meaning in reference.settings()}
    assert meanings["model.depth"].startswith("blocks")
    assert meanings["data.reader"].startswith('"webdataset" streams')


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("[a](../results/README.md#x)", "[a](records.md#x)"),
        ("[a](../README.md)", "[a](index.md)"),
        ("[a](data.md)", "[a](data.md)"),
        ("[a](https://b.c)", "[a](https://b.c)"),
        ("[code](../ablations/spec.py)", "`ablations/spec.py`"),
        ("![a](../results/figures/figure4.png)", "![a](images/figure4.png)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(link, found):
    assert reference.relinked(link, "docs/page.md") == found


@pytest.mark.slow
def test_the_site_is_built_without_a_broken_link(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    settings = (tmp_path / "settings.html").read_text()
    assert all(
        f"<code>{name}</code>" in settings for name in ("recipe.lr", "model.inner_heads", "cluster.lead")
    )
    assert "images/s" in (tmp_path / "commands.html").read_text()
    assert "patch_size" in (tmp_path / "costs.html").read_text()
