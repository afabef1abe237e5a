"""The page of runs: what it shows, to whom it answers, and that nothing of a record becomes a part of it."""

import http.client
import json
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from pipeline import launch
from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.plan import PlannedRun
from pipeline.launching.view.looks import Looks
from pipeline.launching.view.server import DATA, ViewServer
from pipeline.processes.place import Place
from pipeline.runs import records
from pipeline.runs import state as states
from pipeline.runs.attempts import AttemptLog, lease
from pipeline.runs.state import RunState
from tests.ablations.drawn import HOSTILE, leave_journal
from tests.browsers import SCREENS, violations
from tests.browsers import browser as browser
from tests.pipeline.ranks import DEADLINE, ROOT, start
from tests.pipeline.runs.test_records import record

IDS = {"done": record().id, "running": "1" * 12, "broken": "2" * 12, "missing": "3" * 12}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each state, as their files tell; one is held while the tests go on."""
    folder = tmp_path_factory.mktemp("lab")
    config = compose(
        [
            "scale=demo",
            "cluster=local",
            f"paths.runs={folder / 'runs'}",
            f"paths.records={folder / 'records'}",
        ]
    )
    records.publish(record(hosts=(HOSTILE,)), folder / "records")
    for state in ("running", "broken"):
        directory = folder / "runs" / IDS[state]
        leave_journal(directory, 90.0, epochs=20)
        AttemptLog(directory, 1).begin(1, ("here",), Place("plain"))
        at = RunState(
            1, step=150, steps=200, images_per_step=32, images_per_second=0.01, top1=60.0, time=time.time()
        )
        states.write(directory, at)
    with lease(folder / "runs" / IDS["running"]):
        known = [PlannedRun(config, id, (f"inner_heads/{state}",)) for state, id in IDS.items()]
        yield [*known, PlannedRun(config, "", ("inner_heads/none",), obstacle=HOSTILE)]


@contextmanager
def served(look, port=0):
    with ViewServer(port, look) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(runs):
    looks = Looks(runs, again=True)
    with served(lambda: looks.for_programs(looks.found())) as server:
        yield server


def ask(server, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=DEADLINE)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{server.server_port}"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_it_tells_what_status_tells_with_curves_and_hours(server, runs):
    answer, content = ask(server, f"/{server.secret}/{DATA}")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    said = json.loads(content)
    assert [run["state"] for run in said["runs"]] == [*IDS, "no data"]
    done, running, _, missing, _ = said["runs"]
    assert (done["device_hours"], running["step"], running["steps"]) == (0.5, 150, 200)
    assert running["curves"]["top1"][-1] == [20.0, 90.0]
    assert missing["curves"] == {"loss": [], "top1": []}
    assert said["seconds_left"] > running["seconds_left"]  # one more has to be trained
    looks = Looks(runs, again=False)
    again = looks.for_programs(looks.found())
    moving = ("time", "seconds_left")
    for one, other in zip(said["runs"], json.loads(json.dumps(again))["runs"], strict=True):
        assert {**one, **dict.fromkeys(moving)} == {**other, **dict.fromkeys(moving)}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1@evil", "[::1"]
)
def test_a_page_from_elsewhere_under_whose_name_it_is_asked_gets_nothing(server, host):
    assert ask(server, f"/{server.secret}/{DATA}", host)[0].status == 403


@pytest.mark.parametrize(
    "path", ["/", "/status.json", "/wrong/status.json", "/{}/../server.py", "/{}/looks.py", "/{}"]
)
def test_without_the_whole_address_there_is_nothing(server, path):
    assert ask(server, path.format(server.secret))[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(server, method):
    assert ask(server, f"/{server.secret}/", method=method)[0].status == 501


def test_it_answers_on_this_machine_alone_and_a_taken_port_is_said(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UserError, match=f"port={server.server_port}: Address already in use; choose another"):
        ViewServer(server.server_port, dict)
    with pytest.raises(UserError, match="port=99999: no such port"):
        ViewServer(99999, dict)


@pytest.fixture
def visit(browser, server):
    contexts, wrong = [], []

    def go(address="", **settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address or server.address)
        expect(page.locator("#runs tbody tr").first).to_be_visible()
        return page

    yield go
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.browser
def test_runs_failures_and_curves_are_shown_and_a_record_adds_no_markup(visit):
    page = visit()
    rows = page.locator("#runs tbody tr").all_inner_texts()
    assert len(rows) == 5
    assert "150 of 200, 75 %" in rows[1]
    assert HOSTILE in rows[0]
    assert HOSTILE in page.locator("#failures li").nth(1).inner_text()
    assert "1 done, 1 running, 1 broken, 1 missing, 1 no data; about" in page.locator("#summary").inner_text()
    assert page.locator("#curves svg").count() == 2
    assert page.locator("#curves polyline").count() == 4
    assert page.locator("img, main script").count() == 0
    assert page.evaluate("window.taken") is None


@pytest.mark.browser
@pytest.mark.parametrize("settings", SCREENS)
def test_axe_finds_nothing_and_a_phone_never_scrolls_sideways(visit, settings):
    page = visit(bypass_csp=True, **settings)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_it_follows_the_runs_and_says_when_the_command_has_gone(browser):
    said = {"runs": [], "counts": {"running": 1}, "seconds_left": 9.0, "time": 0.0}
    page = browser.new_page()
    with served(lambda: said) as server:
        page.goto(server.address)
        expect(page.locator("#summary")).to_contain_text("1 running; about 0:00:09 left of all")
        said |= {"counts": {"done": 1}, "seconds_left": None}
        expect(page.locator("#summary")).to_contain_text("1 done; 0.00 device-hours used")
    expect(page.locator("#silence")).to_contain_text(
        "Is the command that printed this address still at work?"
    )
    page.close()


def test_the_command_serves_it_and_ctrl_c_ends_it(tmp_path):
    command = [
        ROOT / "pipeline/launch.py",
        "scale=demo",
        "model=tnt_ti",
        "cluster=local",
        "action=watch",
        "html=true",
    ]
    process = start([*command, f"paths.runs={tmp_path}", f"paths.records={tmp_path}"], cold=True)
    line = process.stdout.readline()
    port, secret = line.removeprefix("the runs as a page: http://127.0.0.1:").strip("/\n").split("/")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=DEADLINE)
    connection.request("GET", f"/{secret}/{DATA}")
    assert len(json.loads(connection.getresponse().read())["runs"]) == 1
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert "the page is closed; runs go on" in out


@pytest.mark.parametrize("more", ["html=true", "port=8765", "html=true action=plan"])
def test_a_page_is_for_watching(more):
    with pytest.raises(UserError, match="action=watch html=true"):
        launch.main(["ablation=se", *more.split()])
