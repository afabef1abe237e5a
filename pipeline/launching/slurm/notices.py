"""Messages to whoever submitted runs: that one failed, and that all of an array have ended.

An address may hold a password: it stands in a file of the launch, and in no config, record, log or message.
"""

import contextlib
import os
import sys
from collections.abc import Sequence

from pipeline.config import run as configs
from pipeline.errors import UserError
from pipeline.launching.slurm.launches import Launch
from pipeline.runs import attempts, records
from pipeline.runs.directory import CONFIG
from tnt.untrusted.reading import read_text

ADDRESS, TOLD = "notify", "told"  # in the launch's directory
BY_SIGNAL = 128 + 15  # somebody ended the job, or it is queued again


def check(address: str) -> None:
    """Refuse what no message could be sent to, before anything is submitted."""
    try:
        from apprise import Apprise
    except ImportError:
        raise UserError("notify= needs apprise: pip install 'tnt-lab[notify]'") from None
    if not Apprise().add(address):
        kind = address.partition(":")[0]
        raise UserError(
            f"notify={kind}:… is no address that apprise knows, such as slack://TOKENS, jsons://HOST/PATH or "
            "mailto://USER:PASSWORD@HOST: https://appriseit.com/services"
        )


def keep(launch: Launch, address: str) -> None:
    path = launch.directory / ADDRESS
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(address)


def events(launch: Launch, id: str, status: int) -> list[tuple[str, str]]:
    """Title and text of what is to be told now that a job of this run has ended with this status."""
    runs = launch.directory.parents[1]
    about = configs.read(runs / id / CONFIG).about
    name = f"{about.ablation}/{about.cell}" if about.ablation else id
    found = []
    if why := _failure(launch, id, status):
        found.append((f"tnt: {name} failed", f"{why}\nrun {id}, job {launch.task(id)}"))
    ends = [_end(launch, one) for one in launch.runs]
    if all(ends):
        failed = f", {ends.count('failed')} failed" if "failed" in ends else ""
        title = f"tnt: {about.ablation or name}: {ends.count('done')} of {len(ends)} runs are done{failed}"
        with contextlib.suppress(FileExistsError):  # another job has ended at the same time, and tells it
            (launch.directory / TOLD).touch(exist_ok=False)
            found.append((title, f"launch {launch.directory.name}"))
    return found


def _failure(launch: Launch, id: str, status: int) -> str:
    directory = launch.directory.parents[1] / id
    end = attempts.ending(directory)
    if status in (0, BY_SIGNAL) or (end and end.end == attempts.STOPPED):
        return ""
    return attempts.last_end(directory) or f"its job ended with status {status} before its first step"


def _end(launch: Launch, id: str) -> str:
    """ "done", "failed", or "" for a run that goes on or was stopped."""
    directory = launch.directory.parents[1] / id
    if records.exists(configs.read(directory / CONFIG).paths.records, id):
        return "done"
    end = attempts.ending(directory)
    return "failed" if end and end.end == attempts.FAILED else ""


def tell(launch: Launch, ids: Sequence[str], status: int) -> None:
    """A job of these runs has ended."""
    if not (launch.directory / ADDRESS).exists():
        return
    from apprise import Apprise

    post = Apprise()
    post.add(read_text(launch.directory / ADDRESS))
    for title, text in (event for id in ids for event in events(launch, id, status)):
        if not post.notify(title=title, body=text):
            print(f"warning: {title!r} could not be told", file=sys.stderr)
