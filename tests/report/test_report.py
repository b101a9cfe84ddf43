from __future__ import annotations

import base64
import csv
import dataclasses
import html.parser
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bibench_tf import report
from bibench_tf.errors import BibenchError, InvalidOption
from bibench_tf.names import BASELINE, BIBENCH
from bibench_tf.report import charts, colours, markdown, tables
from bibench_tf.report.scores import Chart, Picture, TrackScore

KEYS = (BASELINE, *BIBENCH)
EVIL = "<script>alert('x')</script>|`*&\"$_"
CHARTS = {
    "bars": Chart("bars", "Accuracy", "algorithm", "accuracy", {"accuracy": [(key, 0.5) for key in KEYS]}),
    "grouped bars": Chart("bars", "Gap", "corruption", "gap", {key: [("fog", 0.1), ("snow", 0.3)] for key in KEYS}),
    "lines": Chart("lines", "By epoch", "epoch", "accuracy", {key: [(1, 0.2), (2, 0.4)] for key in KEYS}),
    "points": Chart("points", "Trade", "ms", "accuracy", {key: [(3.5, 0.2)] for key in KEYS}),
    "strip": Chart("strip", "Spread", "algorithm", "accuracy", {"all": [(key, y) for key in KEYS for y in (0.1, 0.4)]}),
    "heat": Chart("heat", "Lost", "corruption", "lost (%)", {key: [("fog", 12.0), ("snow", 55.5)] for key in KEYS}),
    "bars with intervals": Chart(
        "bars",
        "Accuracy",
        "algorithm",
        "accuracy",
        {"all": [("bnn", 0.5), ("xnor", 0.7)]},
        {"all": [("bnn", 0.4, 0.65)]},
    ),
    "strip by setting": Chart(
        "strip", "Spread", "algorithm", "accuracy", {s: [(key, 0.4) for key in KEYS] for s in ("adam", "sgd")}
    ),
}


def track(name="task", scores=None, **changes):
    scores = {"full_precision": 1.0, "bnn": 0.7312345678901234, "xnor": 0.8} if scores is None else scores
    table = pd.DataFrame({"algorithm": list(scores), "latency_ms": [1.5 * index for index in range(len(scores))]})
    fields = {
        "title": f"Track {name}",
        "metric": f"OM_{name}",
        "formula": "sqrt( x^2 )",
        "scores": scores,
        "table": table,
        "charts": [CHARTS["bars"]],
    }
    return TrackScore(track=name, **{**fields, **changes})


def write(folder, *scores, conditions=None, **changes):
    page = report.write(scores, folder, title="A report", conditions=conditions or {}, **changes)
    return page.read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")


class Page(html.parser.HTMLParser):
    """The tags, attributes and text of an HTML page, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts, self.stack = [], [], [], []
        self.feed(page)
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag != "meta":
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def cells(page):
    """The rows of the overall table of an HTML page."""
    table = re.search(r"<tbody>(.*?)</tbody>", page, re.S)[1]
    rows = [re.findall(r"<t[hd].*?</t[hd]>", row) for row in table.split("<tr>")[1:]]
    return {re.sub("<.*?>", "", row[0]): row[1:] for row in rows}


def test_all_files_are_written_and_the_page_is_returned(tmp_path):
    page = report.write([track("task"), track("training")], tmp_path / "new" / "report", title="t", conditions={})
    assert page == tmp_path / "new" / "report" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == {
        "report.html",
        "report.md",
        *(f"{name}.{kind}" for name in ("overall", "task", "training") for kind in ("csv", "json")),
        "task-1.svg",
        "training-1.svg",
    }


def test_the_same_scores_give_the_same_files(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder, track(charts=list(CHARTS.values())))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("forms", [("md",), ("csv", "json"), ("html",), ("svg", "md")])
def test_only_the_forms_asked_for_are_written(tmp_path, forms):
    score = track(pictures=[Picture("Found", tmp_path / "found.jpg")])
    score.pictures[0].file.write_bytes(b"picture")
    everything = report.write([score], tmp_path / "all", title="t", conditions={"a": "b"}).parent
    last = report.write([score], tmp_path / "some", title="t", conditions={"a": "b"}, forms=forms)
    names = {path.name for path in everything.iterdir() if path.suffix[1:] in forms}
    assert {path.name for path in last.parent.iterdir()} == names and last.name in names
    if "md" in forms:
        text = (last.parent / "report.md").read_text()
        assert set(re.findall(r"\]\((.*?)\)", text)) == names - {"report.md"}, "nothing is shown that is not there"
        assert len(text.splitlines()) < len((everything / "report.md").read_text().splitlines())


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(InvalidOption, match="no form pdf"):
        report.write([track()], tmp_path / "new", title="t", conditions={}, forms=("md", "pdf"))
    assert not (tmp_path / "new").exists()


# Titles

TITLES = {"full_precision": "Full precision", "xnor": "XNOR-Net", "xnorpp": "XNOR-Net++"}


def test_titles_are_shown_and_keys_are_stored(tmp_path):
    scores = {"full_precision": 1.0, "xnor": 0.4321, "xnorpp": None, "own": 0.5}
    lines = ["xnorpp has no OM_task: too few.", "xnor: a warning on paper.", "own work is not counted"]
    drawn = [CHARTS["bars"], CHARTS["lines"], CHARTS["heat"]]
    page, text = write(tmp_path, track(scores=scores, titles=TITLES, charts=drawn, notes=lines))
    assert list(cells(page)) == ["Full precision", "XNOR-Net", "XNOR-Net++", "own"]
    terminal = report.to_text([track(scores=scores, titles=TITLES, notes=lines)])
    plots = [(tmp_path / f"task-{number}.svg").read_text() for number in (1, 2, 3)]
    for shown in (page, text, terminal, *plots):
        assert all(title in shown for title in TITLES.values())
        assert not re.search(r"\b(full_precision|xnor|xnorpp)\b", shown)
    for line in (
        "XNOR-Net: a warning on paper.",
        "no score for XNOR-Net++. XNOR-Net++ has no",
        "own work is not counted",
    ):
        assert line in " ".join(Page(page).texts) and line in text.replace("\\", "") and line in terminal
    assert pd.read_csv(tmp_path / "overall.csv")["algorithm"].tolist() == list(scores)
    assert pd.read_csv(tmp_path / "task.csv")["algorithm"].tolist() == list(scores)
    assert json.loads((tmp_path / "overall.json").read_text())["algorithms"] == {**TITLES, "own": "own"}
    stored = json.loads((tmp_path / "task.json").read_text())
    assert stored["titles"] == TITLES and [row["algorithm"] for row in stored["table"]] == list(scores)


def test_a_title_does_not_change_a_colour_or_the_look_of_the_baseline():
    palette = colours.assign(KEYS)
    titles = {key: key.upper() for key in KEYS}
    renamed = {titles[key]: colour for key, colour in palette.items()}
    for name in ("bars", "grouped bars", "lines", "points", "strip"):
        plain = [element.get("style") for element in drawn(CHARTS[name]).iter("path")]
        svg = charts.draw(CHARTS[name].titled(titles), renamed, "p")
        assert [element.get("style") for element in ElementTree.fromstring(svg).iter("path")] == plain


@pytest.mark.parametrize(
    ("missing", "line", "explains"),
    [
        ("xnor", "XNOR-Net: diverged.", True),
        ("xnor", "XNOR-Net++: diverged.", False),
        ("xnorpp", "XNOR-Net++ on digits: diverged.", True),
        ("xnor", "xnor has no OM_task.", True),
        ("xnor", "xnorpp has no OM_task.", False),
        ("full_precision", "Full precision: diverged.", True),
    ],
)
def test_a_reason_names_the_algorithm_by_its_key_or_its_title(missing, line, explains):
    scores = {key: None if key == missing else 1.0 for key in TITLES}
    text = report.to_text([track(scores=scores, titles=TITLES, notes=[line]), track("training", scores)])
    shown = line.replace("xnor has", "XNOR-Net has")
    assert (f"no score for {TITLES[missing]}. {shown}" in text) is explains


def test_equal_titles_are_told_apart_by_their_keys():
    score = track(scores={"bnn": 1.0, "own": 2.0, "xnor": None}, titles={"bnn": "BNN", "own": "BNN"})
    assert tables.algorithms([score, track("training")]) == {
        "full_precision": "full_precision", "bnn": "BNN (bnn)", "own": "BNN (own)", "xnor": "xnor"
    }  # fmt: skip


# Numbers


def test_csv_and_json_hold_the_scores_unrounded(tmp_path):
    scores = [track("task"), track("training", {"xnor": 1 / 3, "full_precision": np.float64(1), "bnn": None})]
    write(tmp_path, *scores)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "overall.csv").read_text())))
    assert [row["algorithm"] for row in rows] == ["full_precision", "bnn", "xnor"]
    content = json.loads((tmp_path / "overall.json").read_text())
    for score, written in zip(scores, content["tracks"], strict=True):
        assert written["scores"] == score.scores
        for row in rows:
            expected = score.scores[row["algorithm"]]
            assert row[score.track] == "" if expected is None else float(row[score.track]) == expected
    values = pd.read_csv(tmp_path / "task.csv")
    pd.testing.assert_frame_equal(values, scores[0].table, check_dtype=False)


def test_track_json_is_the_whole_track(tmp_path):
    table = pd.DataFrame({"algorithm": ["bnn"], "size_bytes": np.array([7]), "note": [None], "loss": [float("nan")]})
    score = track(table=table, conditions={"threads": "1"}, notes=["n"], failures=["f"], complete=False)
    write(tmp_path, score)
    content = json.loads((tmp_path / "task.json").read_text())
    assert set(content) == {field.name for field in dataclasses.fields(TrackScore)}
    assert content["table"] == [{"algorithm": "bnn", "size_bytes": 7, "note": None, "loss": None}]
    assert content["charts"][0]["series"] == {"accuracy": [[key, 0.5] for key in KEYS]}
    assert content["complete"] is False


def test_an_index_with_a_meaning_becomes_a_column(tmp_path):
    table = pd.DataFrame({("noise", "gap"): [0.25]}, index=pd.Index(["bnn"], name="algorithm"))
    write(tmp_path, track(table=table))
    assert (tmp_path / "task.csv").read_text() == "algorithm,noise gap\nbnn,0.25\n"


def test_percentages_order_and_the_best(tmp_path):
    scores = {"own": 0.9, "full_precision": 1.0, "bnn": 0.7, "tied": 0.9}
    page, text = write(tmp_path, track("task", scores), track("complexity", {"bnn": 11.112, "full_precision": 1.0}))
    table = cells(page)
    assert list(table) == ["full_precision", "own", "bnn", "tied"]
    assert [re.sub("<.*?>", "", cell) for cell in table["bnn"]] == ["70.0", "1,111"]
    assert [key for key in table if "<strong>" in table[key][0]] == ["own", "tied"]
    assert [key for key in table if "<strong>" in table[key][1]] == ["bnn"]
    assert "| own | **90.0** | – |" in text
    assert "| full_precision | 100.0 | 100 |" in text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.8731, 0.9, None], ["0.8731", "0.9000", "–"]),
        ([12.345, 3.2], ["12.35", "3.20"]),
        ([11689512, 64], ["11,689,512", "64"]),
        ([11689512.0, 64.0, float("nan")], ["11,689,512", "64", "–"]),
        ([1.5e-7, 2.25e-6], ["1.50e-07", "2.25e-06"]),
        ([0.0, 0.0], ["0.000", "0.000"]),
        ([-12.5, 1.0], ["-12.50", "1.00"]),
        ([True, False, None], ["yes", "no", "–"]),
        (["a", 1.5], ["a", "1.5"]),
        ([None, None], ["–", "–"]),
    ],
)
def test_values_have_sensible_digits(values, texts):
    table = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    assert [row[0] for row in tables.values(table).rows] == texts


def test_headings_read_as_words_but_symbols_stay():
    table = pd.DataFrame(columns=["latency_ms", "r_c", "OM_task", "vgg_small accuracy"])
    assert tables.values(table).header == ["latency ms", "r_c", "OM_task", "vgg_small accuracy"]


# What is missing


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_missing_score_stays_empty_and_is_named_with_its_reason(tmp_path, missing):
    reason = "xnor: the loss was not a number in epoch 2."
    scores = {"full_precision": 1.0, "xnor": missing, "xnorpp": 0.5}
    page, text = write(tmp_path, track("task", scores, failures=[reason, "xnorpp: a warning."]))
    assert (tmp_path / "overall.csv").read_text() == "algorithm,task\nfull_precision,1.0\nxnor,\nxnorpp,0.5\n"
    assert json.loads((tmp_path / "overall.json").read_text())["tracks"][0]["scores"]["xnor"] is None
    sentence = f"Track task: no score for xnor. {reason}"
    assert sentence in page and sentence in text
    assert ">–<" in cells(page)["xnor"][0]
    assert f"- {sentence}" in report.to_text([track("task", scores, failures=[reason])]).splitlines()


def test_an_algorithm_that_a_track_does_not_know_is_named(tmp_path):
    page, text = write(tmp_path, track("task"), track("training", {"full_precision": 1.0}))
    sentence = "Track training: no score for bnn, xnor. The track gives no reason."
    assert sentence in page and sentence in text


def test_failures_notes_and_conditions_are_shown(tmp_path):
    score = track(failures=["bnn: diverged."], notes=["On two cores."], conditions={"threads": "four"})
    page, text = write(
        tmp_path, score, failures=["runs/0123/result.json was changed."], conditions={"hardware": "a small computer"}
    )
    shown = " ".join(Page(page).texts)
    for sentence in (
        "bnn: diverged.",
        "On two cores.",
        "four",
        "runs/0123/result.json was changed.",
        "a small computer",
        "sqrt( x^2 )",
    ):
        assert sentence in shown
        assert sentence in text


def test_incomplete_tracks_are_marked_everywhere(tmp_path):
    scores = [track("task"), track("training", complete=False, notes=["Two settings of eight."])]
    page, text = write(tmp_path, *scores)
    sentence = "Covers only a part of the definition of BiBench, see the notes of the track: Track training."
    assert sentence in page and sentence in text and sentence in report.to_text(scores)
    assert "Track training&nbsp;†" in page and "Track task&nbsp;†" not in page
    assert page.count("† partial</span>") == 1
    assert "| Track training † |" in text and "## Track training †" in text and "Track task †" not in text
    assert "training+" in report.to_text(scores)


def test_nothing_scored(tmp_path):
    page, text = write(tmp_path)
    assert "No track was scored." in page and "No track was scored." in text
    assert report.to_text([]) == "No track was scored."
    assert (tmp_path / "overall.csv").read_text() == "algorithm\n"


def test_an_empty_table_and_no_charts(tmp_path):
    page, _ = write(tmp_path, track(scores={}, table=pd.DataFrame(), charts=[]))
    assert "<figure>" not in page
    assert "task" in report.to_text([track(scores={}, table=pd.DataFrame(), charts=[])])


# Safety


def test_user_strings_cannot_become_markup(tmp_path):
    score = track(
        "task",
        {"full_precision": 1.0, EVIL: 0.5, "bnn": None},
        title=EVIL,
        metric=EVIL,
        formula=EVIL,
        table=pd.DataFrame({"algorithm": [EVIL], EVIL: [EVIL]}),
        charts=[dataclasses.replace(CHARTS["bars"], title=EVIL, series={EVIL: [(EVIL, 1.0)], "b": [("c\x07\n", 1)]})],
        conditions={EVIL: EVIL},
        notes=[EVIL],
        failures=[EVIL],
        complete=False,
    )
    folder = tmp_path / "evil"
    page = report.write([score], folder, title=EVIL, conditions={EVIL: EVIL}, failures=[EVIL]).read_text()
    seen = Page(page)
    assert "script" not in seen.tags
    assert "".join(seen.texts).count(EVIL) >= 12
    assert json.loads((folder / "task.json").read_text())["notes"] == [EVIL]
    assert list(csv.reader(io.StringIO((folder / "overall.csv").read_text())))[2][0] == EVIL
    text = (folder / "report.md").read_text()
    outside_code = re.sub(r"(`+).*?\1", "", re.sub(r"\\.", "", text))
    assert "<" not in outside_code
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert columns == [3] * 6 + [3] * 3 + [3] * 3  # overall, values, conditions: no cell has become two
    ElementTree.fromstring((folder / "task-1.svg").read_text())


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    page, _ = write(tmp_path, track(charts=list(CHARTS.values())))
    assert not re.search(r"https?://|<script|@import|javascript:", page)
    seen = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert all(value.startswith("#") for name, value in seen.attributes if name in ("href", "src"))
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", page))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in seen.attributes


def test_identifiers_are_unique_and_references_have_a_target(tmp_path):
    page, _ = write(tmp_path, track(charts=list(CHARTS.values())), track("training", charts=list(CHARTS.values())))
    attributes = Page(page).attributes
    identifiers = [value for name, value in attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    wanted = [value[1:] for name, value in attributes if name == "href"] + re.findall(r"url\(#(.*?)\)", page)
    assert wanted and set(wanted) <= set(identifiers)


def test_pictures_are_inside_the_page_and_beside_the_text(tmp_path):
    file = tmp_path / "found.jpg"
    file.write_bytes(b"\xff\xd8\xff picture")
    page, text = write(tmp_path / "report", track(pictures=[Picture(EVIL, file), Picture("Second", file)]))
    assert page.count(f'src="data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"') == 2
    assert "<script" not in page and "<script" not in text.replace("\\<", "")
    assert "![Second](task-picture-2.jpg)" in text
    assert (tmp_path / "report" / "task-picture-2.jpg").read_bytes() == file.read_bytes()
    stored = json.loads((tmp_path / "report" / "task.json").read_text())
    assert stored["pictures"] == [EVIL, "Second"], "their names and no paths"


def test_markdown_escapes():
    assert markdown.escape("a|b\nc") == r"a\|b c"
    assert markdown.escape("full_precision _x_") == r"full_precision \_x\_"
    assert markdown.escape("# x") == r"\# x"
    assert markdown.code("a`b") == "``a`b``"
    assert markdown.code("`a`") == "`` `a` ``"


@pytest.mark.parametrize("name", ["../task", "a/b", "", "overall", "report", "a b"])
def test_a_track_that_cannot_name_files_is_refused(tmp_path, name):
    with pytest.raises(BibenchError, match="cannot be reported"):
        write(tmp_path / "new", track(name))
    assert not (tmp_path / "new").exists()


def test_two_tracks_of_one_name_are_refused(tmp_path):
    with pytest.raises(BibenchError, match="the only one"):
        write(tmp_path, track(), track())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["file", "file/report"])
def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BibenchError, match="Cannot write"):
        write(tmp_path / folder, track())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_fault_while_rendering_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        write(tmp_path / "new", track(charts=[dataclasses.replace(CHARTS["bars"], kind="pie")]))
    assert not (tmp_path / "new").exists()


# Charts


def drawn(chart):
    return ElementTree.fromstring(charts.draw(chart, colours.assign(KEYS), "p").replace(" xmlns=", " data-ns="))


def words(root):
    return [element.text for element in root.iter("text")]


@pytest.mark.parametrize("name", CHARTS)
def test_every_kind_of_chart_is_drawn_with_its_labels(name):
    chart = CHARTS[name]
    shown = words(drawn(chart))
    assert chart.x_label in shown and chart.y_label in shown
    categories = {x for points in chart.series.values() for x, _ in points if isinstance(x, str)}
    assert categories <= set(shown)
    if len(chart.series) > 1:
        assert set(chart.series) <= set(shown)


@pytest.mark.parametrize("name", ["bars", "grouped bars", "lines", "points", "strip"])
def test_an_algorithm_has_one_colour_in_every_chart(name):
    svg = charts.draw(CHARTS[name], colours.assign(KEYS), "p")
    for colour in colours.assign(KEYS).values():
        assert colour in svg


@pytest.mark.parametrize("name", ["lines", "points", "strip"])
def test_every_value_is_a_mark_in_the_colour_of_its_algorithm(name):
    values = sum(len(points) for points in CHARTS[name].series.values()) // len(KEYS)
    marks = [element.get("style") for element in drawn(CHARTS[name]).iter("use")]
    in_legend = 0 if name == "strip" else 1
    for colour in colours.assign(KEYS).values():
        assert sum(f"stroke: {colour}" in style for style in marks) == values + in_legend


def test_colours_are_distinct_and_do_not_depend_on_who_else_is_there():
    alone, together = colours.assign(["fda", "own"]), colours.assign([*KEYS, "own", "other"])
    assert alone["fda"] == together["fda"] and alone["own"] == together["own"]
    assert len(set(together.values())) == len(KEYS) + 2


@pytest.mark.parametrize("kind", ["bars", "lines", "points", "strip"])
def test_points_without_a_value_are_left_out(kind):
    x = "bnn" if kind in ("bars", "strip") else 1
    series = {"a": [(x, 0.5), (x, float("nan")), (x, None)], "b": [(x, float("inf"))], "c": []}
    assert "0.5" in " ".join(words(drawn(Chart(kind, "t", "x", "y", series))))
    assert words(drawn(Chart(kind, "t", "x", "y", {"b": series["b"]}))) == ["no values"]
    assert words(drawn(Chart(kind, "t", "x", "y", {}))) == ["no values"]


def test_long_and_odd_names_keep_their_place():
    long = [f"{'a_very_long_name_' * 3}{end}" for end in "bc"]
    shown = words(drawn(Chart("lines", "t", "x", "y", {name: [(1, 0.5)] for name in [*long, "_own", "$a$"]})))
    assert sum(text.startswith("a_very_long") and len(text) <= 30 for text in shown) == 2
    assert "$a$" in shown and any(text.endswith("_own") for text in shown)


def cell_colours(chart):
    """Background and text colour of every cell of a heat map, by its text."""
    root = drawn(chart)
    patches = [
        re.search(r"fill: (#\w+)", path.get("style"))[1]
        for group in root.iter("g")
        if (group.get("id") or "").startswith("p-patch")
        for path in group.iter("path")
        if "fill: #" in path.get("style", "")
    ]
    texts = [element for element in root.iter("text") if re.fullmatch(r"-?[\d.]+", element.text or "")]
    inks = [re.search(r"fill: (#\w+)", element.get("style"))[1] for element in texts]
    assert len(patches) == len(texts)
    return {element.text: (patch, ink) for element, patch, ink in zip(texts, patches, inks, strict=True)}


def luminance(colour):
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_a_heat_map_grows_darker_and_its_numbers_stay_readable():
    values = np.linspace(0, 60, 25).round().tolist()
    found = cell_colours(Chart("heat", "t", "x", "y", {"bnn": [(f"c{value:.0f}", value) for value in values]}))
    assert [float(text) for text in found] == values
    shades = [luminance(background) for background, _ in found.values()]
    assert sorted(shades, reverse=True) == shades and shades[0] - shades[-1] > 0.5
    for background, ink in found.values():
        dark, light = sorted([luminance(background), luminance(ink)])
        assert (light + 0.05) / (dark + 0.05) >= 4.45  # legible on its cell, whatever the page


def test_a_heat_map_has_a_cell_for_each_value_and_no_picture():
    chart = Chart("heat", "t", "x", "y", {"a": [("fog", 12.0), ("snow", None)], "b": [("snow", 48.0)], "c": []})
    assert set(cell_colours(chart)) == {"12", "48"}
    assert "<image" not in charts.draw(chart, {}, "p")
    assert {"fog", "snow", "a", "b"} <= set(words(drawn(chart))) and "c" not in words(drawn(chart))
    small = Chart("heat", "t", "x", "y", {"a": [("fog", 0.125), ("snow", 0.5)]})
    assert set(cell_colours(small)) == {"0.1250", "0.5000"}
    assert len(cell_colours(Chart("heat", "t", "x", "y", {"a": [("fog", 0.0)]}))) == 1


def error_bar(chart):
    """Start and end of the only error bar, on the page."""
    root = drawn(chart)
    (group,) = [group for group in root.iter("g") if (group.get("id") or "").startswith("p-LineCollection")]
    paths = [path.get("d").split() for path in group.iter("path")]
    return [[float(path[1]), float(path[2]), float(path[4]), float(path[5])] for path in paths]


def test_intervals_stand_around_their_bars():
    def bars(*bounds):
        series = {"all": [("bnn", 0.5), ("xnor", 0.7), ("recu", 0.6)]}
        intervals = {"all": [(key, *each) for key, each in zip(("bnn", "xnor"), bounds, strict=False)]}
        return Chart("bars", "t", "x", "y", series, intervals)

    # Both ends are on the axis, so that the page has the same scale: 0.4 to 0.65 and, cut off, 1.4.
    one, two, none = error_bar(bars((0.4, 0.65), (0.1, float("inf"))))
    height = one[3] - one[1]
    assert abs(height) > 10 and none[1] == none[3], "no interval, nothing drawn"
    assert two[3] - two[1] == pytest.approx(height * 1.3 / 0.25, rel=1e-3)
    cut, far = (error_bar(bars((0.4, 0.65), (0.1, end)))[1] for end in (1.4, 52.0))
    assert cut == pytest.approx(far) and cut == pytest.approx(two)
    assert "LineCollection" not in charts.draw(bars(), colours.assign(KEYS), "p")


def test_intervals_are_a_band_around_a_line():
    series = {"bnn": [(0, 0.5), (1, 0.7)], "xnor": [(0, 0.2), (1, 0.3)]}
    bands = {"bnn": [(0, 0.4, 0.6), (1, 0.6, 0.8)]}
    palette = colours.assign(KEYS)
    with_band = charts.draw(Chart("lines", "t", "x", "y", series, bands), palette, "p")
    without = charts.draw(Chart("lines", "t", "x", "y", series), palette, "p")
    shapes = re.findall(r"<path[^>]*fill-opacity: 0\.15[^>]*", with_band)
    assert palette["bnn"] in with_band and "fill-opacity: 0.15" in with_band
    assert len(shapes) <= 1 and "fill-opacity: 0.15" not in without


# Terminal


def test_text_is_aligned_and_marks_the_best():
    scores = {"full_precision": 1.0, "bnn": 0.7, "xnor": None, "own": 0.85}
    lines = report.to_text([track("task", scores), track("complexity", {"bnn": 31.0})]).splitlines()
    table = lines[2:7]
    assert table[0].split() == ["algorithm", "task", "complexity"]
    assert [line.split() for line in table[1:]] == [
        ["full_precision", "100.0", "-"],
        ["bnn", "70.0", "*3,100"],
        ["xnor", "-", "-"],
        ["own", "*85.0", "-"],
    ]
    assert len({len(line) for line in table}) == 1


def test_text_of_one_track_has_its_values_and_notes():
    text = report.to_text([track(notes=["On two cores."])])
    assert "latency ms" in text and text.endswith("On two cores.")
    assert "latency ms" not in report.to_text([track("task"), track("training")])


def test_a_wide_table_is_turned_in_text():
    table = pd.DataFrame({"algorithm": ["bnn", "own"], **{f"a long heading {index}": [index, 7] for index in range(9)}})
    text = report.to_text([track(table=table)])
    assert ["a", "long", "heading", "8", "8", "7"] in [line.split() for line in text.splitlines()]
    assert max(map(len, text.splitlines())) < 120
