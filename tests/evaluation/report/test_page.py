"""What the report shows of one evaluator's scores, and that the page stands alone."""

from html.parser import HTMLParser

import numpy as np

import evaluate
from evaluation.report.charts import histogram, roc_chart
from evaluation.report.mistakes import confusion, most_confident
from evaluation.results import measure

# 20 known of two classes, 10 unknown; the known ones at .1 are the ones turned away at 95 % recall.
TEST_CLASS = np.array([0] * 10 + [1] * 10 + [-1] * 10)
NORMALITY = np.array([0.9] * 19 + [0.1] + [0.95, 0.9] + [0.2] * 8, dtype=np.float32)
PREDICTED = np.array([0] * 10 + [1] * 8 + [0, 1] + [1] * 10)
RESULT = measure(TEST_CLASS, NORMALITY, PREDICTED, resamples=10)


def test_confusion_counts_every_image_once():
    counts = confusion(TEST_CLASS, RESULT, 2)
    assert counts.tolist() == [[10, 0, 0], [1, 8, 1], [0, 2, 8]]


def test_mistakes_come_from_both_sides_the_surest_first():
    mistakes = most_confident(TEST_CLASS, RESULT)
    assert [(m.position, m.known) for m in mistakes] == [(20, False), (21, False), (19, True)]
    assert mistakes[0].predicted == 1


def test_no_more_than_24_mistakes_are_shown():
    test_class = np.array([0] * 400 + [-1] * 400)
    normality = np.random.default_rng(0).normal(size=800)
    result = measure(test_class, normality, np.zeros(800, dtype=np.int64), resamples=2)
    mistakes = most_confident(test_class, result)
    assert len(mistakes) == 24
    assert sum(mistake.known for mistake in mistakes) == 12


def test_charts_have_a_curve_a_score_and_bars_for_both_kinds():
    known = TEST_CLASS >= 0
    chart = roc_chart(known, {"one": NORMALITY, "two": -NORMALITY})
    assert chart.count("<polyline") == 2
    bars = histogram(known, NORMALITY)
    assert 'class="known"' in bars
    assert 'class="unknown"' in bars


def test_histogram_of_equal_scores_is_drawn():
    assert "<rect" in histogram(TEST_CLASS >= 0, np.ones(30, dtype=np.float32))


class _Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_one_well_formed_file_with_its_receipt(
    pack_path, protocol_file, run_folder, tmp_path
):
    words = ["--protocol", protocol_file, "--pack", pack_path, "--checkpoint", run_folder]
    words += ["--out", tmp_path / "out", "--no-cache", "--device", "cpu", "--resamples", "10"]
    assert evaluate.main([str(word) for word in words]) == 0
    page = _Page()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    for part in (
        "Animals",
        "day",
        "night",
        "evaluate.py --protocol",
        "Known is the positive class",
    ):
        assert part in page.text
