"""What the report shows of one evaluator's scores, and that the page stands alone."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import evaluate
from evaluation.report.mistakes import confusion, most_confident, nearest
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


def test_the_nearest_reference_has_the_highest_cosine():
    features = torch.tensor([[0.0, 1.0], [10.0, 10.0], [0.1, 0.01]])
    assert nearest(torch.tensor([5.0, 0.0]), features) == 2


class _Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.in_bold: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1:] == ["b"]:
            self.in_bold.append(data)


@pytest.fixture(scope="module")
def page(pack_path, protocol_file, run_folder, tmp_path_factory):
    """The page of two evaluators, the one with the higher mean AUROC being asked for last."""
    out = tmp_path_factory.mktemp("page") / "out"
    words = ["--protocol", protocol_file, "--pack", pack_path, "--checkpoint", run_folder]
    words += ["--out", out, "--no-cache", "--device", "cpu", "--resamples", 10]
    words += ["--evaluators", "relation-logit", "cosine"]
    assert evaluate.main([str(word) for word in words]) == 0
    mean = json.loads((out / "results.json").read_text())["benchmarks"][0]["mean"]
    assert mean["relation-logit"]["auroc"] < mean["cosine"]["auroc"]
    page = _Page()
    page.feed((out / "report.html").read_text())
    return page


def test_the_page_is_one_well_formed_file_with_its_receipt(page):
    assert page.open == []
    images = [address for address in page.addresses if not address.startswith("#")]
    assert images
    assert all(address.startswith("data:image/jpeg;base64,") for address in images)
    for part in (
        "Animals",
        "day",
        "night",
        "evaluate.py --protocol",
        "Known is the positive class",
    ):
        assert part in page.text


def test_each_target_of_the_table_leads_to_its_section(page):
    links = [address[1:] for address in page.addresses if address.startswith("#")]
    assert set(links) == set(page.ids) == {"top", "target-1", "target-2"}
    assert len(page.ids) == 3


def test_the_head_has_date_and_checkpoint(page):
    head = page.text[: page.text.index("Known is the positive class")]
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", head)
    assert "checkpoint of step 1: " in head


def test_the_evaluator_with_the_highest_mean_comes_first(page):
    assert "Most confident mistakes of cosine" in page.text
    assert "Most confident mistakes of relation-logit" not in page.text
    shown = page.text[page.text.index("Known is the positive class") :]
    assert shown.index("cosine") < shown.index("relation-logit")


def test_the_best_of_a_target_is_bold(page):
    numbers = [text for text in page.in_bold if re.fullmatch(r"[01]\.\d{4}", text)]
    assert len(numbers) > 3 * 5  # of two targets and the mean, most of nine columns
