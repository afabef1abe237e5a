"""What the report's pictures show; how they look is for eyes."""

import dataclasses

import pytest

from ablations.reporting.figures import bars, curves, draw, figure3, speed, style
from pipeline.runs import log
from tests.ablations.drawn import HEADS

pytestmark = pytest.mark.xdist_group("drawn")  # tables are drawn once


def reported(axes) -> list[tuple[float, float]]:
    """The hollow marks."""
    points = [line.get_xydata() for line in axes.lines if line.get_markerfacecolor() == style.PAPER]
    return sorted(tuple(map(float, point[0])) for point in points if len(point) == 1)


def measured(axes) -> list[tuple[float, float, float]]:
    """The filled marks with half the length of their whiskers, in the order of drawing."""
    found = []
    for container in axes.containers:
        points = container[0].get_xydata() if container.get_label() and len(container) == 3 else []
        for x, y in points:
            halves = [
                abs(end - start).max() / 2 for each in container[2] for start, end in each.get_segments()
            ]
            found.append((float(x), float(y), float(max(halves, default=0))))
    return found


def texts(figure) -> list:
    """Those that are seen: an axis keeps labels of ticks beyond its ends too."""
    [axes] = figure.axes
    found = [*figure.texts, *axes.texts, axes.xaxis.label, axes.yaxis.label]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in found if text.get_text().strip()]


@pytest.mark.slow
def test_the_same_tables_are_the_same_bytes(drawn, tmp_path):
    table = drawn.table("inner_heads")
    again = draw.draw_all([table], tmp_path, drawn.folder / "runs")
    assert [picture.name for picture in again] == ["table6-top1", "table6-loss", "table6-accuracy"]
    for path in sorted(tmp_path.iterdir()):
        assert path.read_bytes() == (drawn.folder / "results" / "figures" / path.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 9  # PNG, SVG and PDF


def test_figure_3_has_every_reported_point_hollow_and_ours_filled_at_our_own_size(drawn):
    table = drawn.table("imagenet")
    with style.style():
        [axes] = figure3.draw(table, "macs").axes
    assert reported(axes) == sorted(
        (row.paper_macs, row.entry("top1").paper) for row in table.rows if row.entry("top1").paper is not None
    )
    runs = [row for row in table.rows if row.entry("top1").values]
    assert {"TNT-S", "TNT-S + SE", "TNT-B"} == {row.label for row in runs}
    ours = [(row.macs / 1e9, row.entry("top1").mean, row.entry("top1").half) for row in runs]
    for mark, expected in zip(sorted(measured(axes)), sorted(ours), strict=True):
        assert mark == pytest.approx(expected)


def test_accuracy_stands_against_the_speed_that_was_measured_on_one_device(drawn):
    """Of networks that differ, beside Figure 3's multiply-adds; runs of two devices tell no such thing."""
    table = drawn.table("imagenet")
    assert speed.compares(table)
    assert not speed.compares(drawn.table("inner_heads"))  # one network but for its heads
    with style.style():
        [axes] = speed.draw(table).axes
    records = [drawn.found.records[id] for entry in table.entries for id in entry.records]
    rates = {record.images_per_second / record.world for record in records}
    assert {x for x, _, _ in measured(axes)} == rates
    assert {y for _, y, _ in measured(axes)} == {row.entry("top1").mean for row in speed.rows(table)}
    other = dataclasses.replace(speed.rows(table)[0], device="another")
    rest = [row for row in table.rows if row.key != other.key]
    assert not speed.compares(dataclasses.replace(table, rows=(other, *rest)))


def test_every_network_of_table_4_has_a_family(drawn):
    families = {row.label: figure3.family_of(row.label) for row in drawn.table("imagenet").rows}
    assert None not in families.values()
    assert families["ViT-B/16"] is not families["T2T-ViT_t-14"]


def test_a_dot_is_the_mean_and_its_whisker_the_interval(drawn):
    table = drawn.table("inner_heads")
    with style.style():
        [axes] = bars.draw(table, "top1").axes
    means = [sum(values) / len(values) for values in HEADS.values()]
    assert [x for x, _, _ in measured(axes)] == pytest.approx(means)
    entries = [row.entry("top1") for row in table.rows]
    assert [(x, half) for x, _, half in measured(axes)] == [
        pytest.approx((entry.mean, entry.half)) for entry in entries
    ]
    assert [x for x, _ in reported(axes)] == [81.0, 81.1, 81.3, 81.3]


def test_a_row_that_was_not_run_says_so_and_has_no_dot(drawn):
    table = drawn.table("position_encoding")
    with style.style():
        [axes] = bars.draw(table, "top1").axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["not run"] * 3  # the fourth row is a run of Table 6
    assert len(measured(axes)) == 1


def test_one_value_alone_is_no_picture(drawn):
    table = drawn.table("inner_heads")
    lonely = dataclasses.replace(
        table.rows[0],
        entries=tuple(
            dataclasses.replace(entry, paper=None, official=None) for entry in table.rows[0].entries
        ),
    )
    assert bars.draw(dataclasses.replace(table, rows=(lonely,)), "top1") is None


def test_curves_are_smoothed_over_their_raw_values_and_named_at_their_ends(drawn):
    table = drawn.table("inner_heads")
    learned = curves.read(table, "top1", drawn.folder / "runs")
    with style.style():
        [axes] = curves.draw(table, "top1", learned, curves.LOSS).axes
    assert {text.get_text() for text in axes.texts} == {"1", "2", "4", "8"}
    raw = [line for line in axes.lines if line.get_alpha() == 0.25]
    over = [line for line in axes.lines if line.get_alpha() == 0.85]
    assert len(raw) == len(over) == len(learned.losses)
    assert list(over[0].get_ydata()) == curves.smoothed(list(raw[0].get_ydata()))
    late = [value for curve in learned.losses for epoch, value in curve.points if epoch >= 75]
    assert axes.get_ylim()[1] < max(value for curve in learned.losses for _, value in curve.points)
    assert axes.get_ylim()[0] < min(late) < max(late) < axes.get_ylim()[1]


def test_curves_are_those_of_the_journals_and_a_missing_one_is_named(drawn):
    runs = drawn.folder / "runs"
    learned = curves.read(drawn.table("imagenet"), "top1", runs)
    [lost] = drawn.table("imagenet").rows[-1].entry("top1").records
    assert learned.missing == (lost,)
    assert len(learned.losses) == len(learned.accuracies) == 4  # three seeds of TNT-S, one of TNT-S + SE
    ends = sorted(curve.points[-1] for curve in learned.accuracies)
    assert ends == [(300.0, 81.3), (300.0, 81.4), (300.0, 81.5), (300.0, 81.5)]  # of the average
    losses = [row["loss"] for row in log.metrics(next(runs.iterdir())) if "loss" in row]
    shown = [value for _, value in learned.losses[0].points]
    assert len(shown) == curves.BINS
    assert sum(shown) / len(shown) == pytest.approx(sum(losses) / len(losses), abs=0.01)
    assert shown[0] == pytest.approx(losses[0], abs=0.03)


def test_without_journals_no_curve_is_drawn_and_the_reason_is_said(drawn, tmp_path):
    table = drawn.table("inner_heads")
    pictures = {each.name: each for each in draw.draw_all([table], tmp_path, tmp_path / "nowhere")}
    assert pictures["table6-top1"].svg
    for name in ("table6-loss", "table6-accuracy"):
        assert pictures[name].svg is None
        assert "no journal of" in pictures[name].text
        assert not list(tmp_path.glob(f"{name}.*"))


def test_a_picture_stays_where_its_records_are_and_its_runs_are_not(drawn, tmp_path):
    table = drawn.table("inner_heads")
    draw.draw_all([table], tmp_path, drawn.folder / "runs")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pictures = draw.draw_all([table], tmp_path, tmp_path / "nowhere")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert [picture.name for picture in pictures if picture.kept] == ["table6-loss", "table6-accuracy"]
    assert all(picture.svg for picture in pictures)


def test_without_any_figure_nothing_is_drawn_and_old_files_go(drawn, tmp_path):
    table = drawn.table("inner_heads")
    (tmp_path / "table6-loss.svg").write_text("old")
    bare = [
        dataclasses.replace(
            row,
            entries=tuple(
                dataclasses.replace(entry, paper=None, values=(), seeds=(), records=())
                for entry in row.entries
            ),
        )
        for row in table.rows
    ]
    pictures = draw.draw_all([dataclasses.replace(table, rows=tuple(bare))], tmp_path, tmp_path)
    assert {picture.svg for picture in pictures} == {None}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["figure3", "bars", "curves"])
def test_no_text_leaves_its_picture_or_lies_on_another(drawn, kind):
    table = drawn.table("imagenet")
    with style.style():
        if kind == "figure3":
            figure = figure3.draw(table, "params")
        elif kind == "bars":
            figure = bars.draw(table, "top1")
        else:
            learned = curves.read(table, "top1", drawn.folder / "runs")
            figure = curves.draw(table, "top1", learned, curves.LOSS)
        figure.draw_without_rendering()
        boxes = {text.get_text(): text.get_window_extent() for text in texts(figure)}
    width, height = figure.bbox.size
    for text, box in boxes.items():
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    items = sorted(boxes.items())
    for place, (text, box) in enumerate(items):
        for other, over in items[place + 1 :]:
            assert not box.overlaps(over), f"{text!r} lies on {other!r}"
