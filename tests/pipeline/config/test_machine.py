"""What a site says of itself reaches a scheduler only in the form that its names have."""

import pytest

from pipeline.config.identity import science
from pipeline.config.machine import FORMS
from pipeline.config.overrides import compose
from pipeline.errors import UserError

HOSTILE = (
    "a b",
    "a;touch x",
    "$(touch x)",
    "`touch x`",
    "a\ntouch x",
    "a\n#SBATCH --wrap=x",
    "a'b",
    'a"b',
    "a>x",
    "a\\b",
    "${HOME}",
    "a\x00b",
    "--wrap=touch",
    "é",
    "a{b,c}",
    "a%j",
)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_that_a_shell_would_read_gets_through(name, value):
    if name == "extra" and value.startswith("--wrap="):
        return  # an option is what is asked for there
    given = [value] if name in ("modules", "extra") else value
    with pytest.raises((UserError, ValueError)) as error:
        compose([f"cluster.{name}={given!r}" if isinstance(given, list) else f"cluster.{name}={given}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "partition": ("gpu", "gpu,long", "gpu_a100-80", ""),
        "account": ("proj@site", "a.b", "a+b"),
        "constraint": ("a100", "a100&nvlink", "h100|a100", "rack*2"),
        "mem": ("64G", "64000", "1T", "0"),
        "time": ("90", "90:00", "12:00:00", "1-0", "1-12:00", "1-12:00:00", ""),
    }.items(),
)
def test_what_sites_use_is_taken(name, values):
    for value in values:
        assert getattr(compose([f"cluster.{name}={value}"]).cluster, name) == value


def test_lists_are_taken_too():
    site = compose(
        ["cluster.modules=[cuda/12.4,gcc]", "cluster.extra=['--exclude=node7','--exclusive']"]
    ).cluster
    assert site.modules == ("cuda/12.4", "gcc")
    assert site.extra == ("--exclude=node7", "--exclusive")


def test_options_of_sbatch_are_written_as_they_are_typed():
    typed = '--exclude=n[1-2] --comment="two words" --exclusive'
    site = compose([f"cluster.extra={typed}", "cluster.constraint=[rack1|rack2]"]).cluster
    assert site.extra == ("--exclude=n[1-2]", "--comment=two words", "--exclusive")
    assert site.constraint == "[rack1|rack2]"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.gpu_request=gpu", "did you mean 'gpus-per-node'|unknown cluster.gpu_request 'gpu'"),
        ("cluster.nodes=-1", "cluster.nodes is -1; it must be from 0 to 1,000,000"),
        ("cluster.time=1h", "cluster.time is '1h'; it must look like 12:00:00"),
        ("cluster.mem=64GB", "cluster.mem is '64GB'; it must look like 64G"),
        ("cluster.extra=['exclude=node7']", r"it must look like --exclude=node\[7-9\]"),
        ('cluster.extra=--comment="a', "cannot read cluster.extra=.*No closing quotation"),
        ("cluster.timeout=0", "cluster.timeout is 0.0; it must be from 1 to 1,000,000"),
        (
            "cluster.timeout=60",
            "cluster.timeout is 60.0 seconds; it must be above data.loading.timeout, 60.0",
        ),
        ("cluster.start_timeout=inf", "cluster.start_timeout is inf; it must be from 1"),
    ],
)
def test_a_mistake_says_what_is_right(override, message):
    with pytest.raises(UserError, match=message):
        compose([override])


def test_where_a_run_is_started_is_no_science():
    here = compose(["scale=demo"])
    there = compose(
        ["scale=demo", "cluster=slurm", "cluster.partition=gpu", "cluster.nodes=4", "cluster.jobs=3"]
    )
    assert science(here) == science(there)
