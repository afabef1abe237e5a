"""launch.py where sites differ: several partitions, or no requeue; and where there is nothing to do."""

import json
import os
import re
import sys

import pytest

from pipeline import launch
from tests.slurm.laboratory import PATIENCE

TWO = ("ablation=inner_heads", "cells=2,4")
ONE = ("ablation=inner_heads", "cells=2")


def alive(slurm):
    return [job for job in slurm.jobs() if job["JobState"] in ("PENDING", "RUNNING")]


def test_a_retry_says_what_there_is_where_nothing_broke(slurm, ask, closed, capsys):
    """Runs that wait, or have not begun, are not done."""
    ask(*ONE)
    capsys.readouterr()
    assert launch.main([*ask.settings, *TWO, "action=retry"]) == 0
    assert capsys.readouterr().out == "nothing to retry: 1 pending, 1 missing\n"
    assert len(alive(slurm)) == 1


def test_a_table_stays_in_one_of_several_partitions_unless_they_may_differ(slurm, ask, capsys):
    """All nodes are taken for an hour, but jobs of one partition go before."""
    taken = slurm.submit("--nodes=3", "--exclusive", "--time=60", "--wrap", "sleep 1000")
    slurm.wait_for(taken, "RUNNING")
    several = ("cluster.partition=[main,urgent]", "cluster.extra=--hold")
    capsys.readouterr()
    launch.main([*ask.settings, *ONE, *several, "action=plan", "when=true"])
    starts = dict(re.findall(r"partition (\w+): would start (\S+)", capsys.readouterr().out))
    assert starts["main"] > starts["urgent"] > "20"
    ask(*ONE, *several)
    ask("ablation=inner_heads", "cells=4", *several)
    assert {job["Partition"] for job in alive(slurm) if job["JobId"] != taken} == {"urgent"}
    ask("ablation=inner_heads", "cells=8", *several, "cluster.mixed=true")
    assert {job["Partition"] for job in alive(slurm) if job["JobId"] != taken} == {"urgent", "main,urgent"}


@pytest.mark.nightly
def test_a_site_that_lets_no_job_requeue_gets_a_new_one_behind_it(slurm, ask, tmp_path):
    [one] = ask(*ONE)[0]["submitted"]
    slurm.wait(lambda: list(tmp_path.glob(f"runs/{one['id']}/checkpoints/step-*")), PATIENCE, "a checkpoint")
    slurm.run("scontrol", "update", f"jobid={one['job']}", "requeue=0")
    slurm.run("scancel", "--signal=USR1", one["job"])
    record = tmp_path / f"records/{one['id']}.json"
    slurm.wait(record.exists, 2 * PATIENCE, "the record")
    jobs = json.loads(record.read_text())["jobs"]
    assert jobs[0] == one["job"]
    assert len(jobs) == 2


# Neither Apptainer nor an image can be had here: this stands for it, takes its command line apart, and runs
# the rest with a Python that it alone has.
APPTAINER = """#!/bin/sh
echo "$@" >> {folder}/called
while [ "$1" != lab.sif ]; do shift; done
shift
PATH={folder}/inside:$PATH INSIDE=1 exec "$@"
"""


@pytest.mark.nightly
def test_a_run_in_an_image_is_interrupted_and_goes_on(slurm, ask, tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "scontrol").write_text("#!/bin/sh\nexit 1\n")  # what an image does not have
    (inside / "python3").write_text(f'#!/bin/sh\n[ "$INSIDE" = 1 ] && exec {sys.executable} "$@"\n')
    (tmp_path / "apptainer").write_text(APPTAINER.format(folder=tmp_path))
    for path in (tmp_path / "apptainer", *inside.iterdir()):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    [one] = ask(*ONE, "cluster.container=lab.sif")[0]["submitted"]
    slurm.wait(lambda: list(tmp_path.glob(f"runs/{one['id']}/checkpoints/step-*")), PATIENCE, "a checkpoint")
    slurm.run("scancel", "--signal=USR1", one["job"])
    record = tmp_path / f"records/{one['id']}.json"
    slurm.wait(record.exists, 2 * PATIENCE, "the record")
    found = json.loads(record.read_text())
    assert (found["attempts"], found["jobs"], slurm.restarts(one["job"])) == (2, [one["job"]], 1)
    called = (tmp_path / "called").read_text().splitlines()
    assert len(called) == 2
    assert f"--bind {tmp_path / 'runs'}" in called[0]
