"""Charts: round ticks, common scales, colors, and files of their own."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from evaluation.report.charts import (
    Band,
    Estimate,
    histogram,
    histogram_chart,
    normality_range,
    overview,
    roc_chart,
)
from evaluation.report.figures import Figures, most_telling_first, write_figures
from evaluation.report.svg import DARK, LIGHT, Chart, Range, Series, legend, shortened

SERIES = {"one": Series.of(0), "two": Series.of(1)}


def parsed(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(chart.standalone())


def texts(chart: Chart) -> list[str]:
    return [element.text or "" for element in parsed(chart).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize(
    ("span", "ticks"),
    [
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((-0.31, 0.09), [-0.3, -0.2, -0.1, 0]),
        ((-412.7, 3), [-400, -300, -200, -100, 0]),
        ((1e-9, 2.4e-9), [1e-9, 1.5e-9, 2e-9]),
        ((0.9999, 1.0001), [0.9999, 0.99995, 1, 1.00005, 1.0001]),
    ],
)
def test_ticks_are_round_numbers_in_the_span(span, ticks):
    assert Range(*span).ticks() == pytest.approx(ticks, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_there_are_2_to_6_ticks_and_rounding_covers_the_span(seed):
    generator = np.random.default_rng(seed)
    low = float(generator.normal() * 10 ** generator.uniform(-3, 3))
    span = Range(low, low + float(10 ** generator.uniform(-4, 4)))
    assert 2 <= len(span.ticks()) <= 6
    rounded = span.rounded()
    assert rounded.low <= span.low
    assert rounded.high >= span.high
    from_zero = Range(0, span.high - span.low).rounded()
    assert from_zero.ticks()[-1] == pytest.approx(from_zero.high)


def test_a_roc_chart_has_a_curve_per_score_and_names_their_areas():
    known, normality = np.array([True, True, False]), np.array([0.2, 0.9, 0.2])
    chart = roc_chart(known, {"one": normality, "two": -normality}, SERIES)
    assert chart.body.count("<polyline") == 2
    assert {"0.750 one", "0.250 two"} <= set(texts(chart))


def test_a_histogram_counts_shares_on_the_given_scale():
    known, normality = np.array([True, True, False]), np.array([0.0, 1.0, 1.0])
    counted = histogram(known, normality, Range(0, 2))
    assert counted.known[[0, 20]].tolist() == [0.5, 0.5]
    assert counted.unknown[20] == counted.top == 1
    chart = histogram_chart(counted, Range(0, 2), 1, SERIES["two"])
    assert {"0", "0.5", "1.5", "2", "100"} <= set(texts(chart))
    assert f'fill="{SERIES["two"].color}"' in chart.body


def test_equal_scores_have_a_histogram():
    span = normality_range([np.ones(3), np.ones(2)])
    assert span.low < 1 < span.high
    counted = histogram(np.array([True, True, False]), np.ones(3, dtype=np.float32), span)
    assert counted.top == 1


def test_thirty_evaluators_differ_and_each_color_shows_on_either_paper():
    found = [Series.of(number) for number in range(30)]
    assert len(set(found)) == 30
    for series in found:
        for theme in (LIGHT, DARK):
            assert contrast(series.color, theme.paper) >= 3


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colors (WCAG 2.2)."""
    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_overview_has_a_dot_per_target_and_evaluator():
    estimates = {"one": Estimate(0.5, 0.4, 0.63), "two": Estimate(1, 1, 1)}
    chart = overview([Band("day", estimates), Band("<night>" * 20, estimates)], SERIES)
    assert chart.body.count("<circle") == 4
    assert {"one", "two", "day", "0.4", "1", "AUROC"} <= set(texts(chart))
    assert any(text.startswith("<night>") and text.endswith("…") for text in texts(chart))
    places = {float(x) for x in re.findall(r'cx="([\d.]+)"', chart.body)}
    assert len(places) == 2
    assert max(places) <= chart.width


def test_long_names_are_cut_to_their_place():
    assert shortened("short", 5) == "short"
    assert shortened("longer", 5) == "long…"
    assert shortened("漢字漢字", 5) == "漢字…"
    entries = [(Series.of(number), "n" * 100) for number in range(3)]
    assert legend(entries, 0, 0, 200).height == legend(entries[:1], 0, 0, 200).height * 3


def test_a_file_of_a_chart_needs_no_style_of_the_page():
    content = overview([Band("day", {"one": Estimate(0.7, 0.6, 0.8)})], SERIES).standalone()
    assert "var(" not in content
    assert "<style>" in content
    assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


def test_figures_have_a_file_each_even_of_names_that_look_alike(results, tmp_path):
    day = results[0].targets[0]
    targets = [replace(day, name=name) for name in ("A b", "a/b", "漢字", "é" * 300, "x" * 300)]
    of_targets = [replace(results[0], targets=targets)]
    write_figures(tmp_path / "figures", of_targets, Figures.draw(of_targets))
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == [
        "animals-a-b-histogram-cosine-2.svg",
        "animals-a-b-histogram-cosine.svg",
        "animals-a-b-roc-2.svg",
        "animals-a-b-roc.svg",
        "animals-histogram-cosine-2.svg",
        "animals-histogram-cosine.svg",
        "animals-overview.svg",
        "animals-roc-2.svg",
        "animals-roc.svg",
        f"animals-{'x' * 40}-histogram-cosine.svg",
        f"animals-{'x' * 40}-roc.svg",
    ]


def labels(chart: Chart) -> list[tuple[str | None, str | None]]:
    """The texts with their anchor; that of a vertical axis is the end."""
    return [(element.text, element.get("text-anchor")) for element in parsed(chart).iter()]


@pytest.fixture
def ranked(results):
    """Two targets with two evaluators, of which the second has the higher mean AUROC."""
    targets = []
    for target in results[0].targets:
        cosine = target.evaluators["cosine"]
        other = replace(
            cosine,
            normality=cosine.normality * 3 - 1,
            metrics={**cosine.metrics, "auroc": cosine.metrics["auroc"] + 0.1},
        )
        targets.append(replace(target, evaluators={"cosine": cosine, "knn": other}))
    return most_telling_first(replace(results[0], targets=targets))


def test_the_highest_mean_auroc_comes_first(ranked):
    assert [list(target.evaluators) for target in ranked.targets] == [["knn", "cosine"]] * 2


def test_an_evaluator_has_one_color_and_one_scale_in_all_charts(ranked):
    figures = Figures.draw([ranked])
    first, second = figures.targets[0]
    for name, series in figures.series.items():
        ticks = [texts(charts.histograms[name]) for charts in (first, second)]
        assert ticks[0] == ticks[1]
        for chart in (figures.overviews[0], first.roc, second.histograms[name]):
            assert series.color in chart.body
    shares = [
        [text for text, place in labels(chart) if place == "end"]
        for charts in (first, second)
        for chart in charts.histograms.values()
    ]
    assert shares[0] == shares[1] == shares[2] == shares[3]
    assert figures.series["knn"] != figures.series["cosine"]
