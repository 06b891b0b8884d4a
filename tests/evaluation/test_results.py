"""What is summed up over the targets of a protocol."""

from dataclasses import replace

import pytest

from evaluation.results import means, settings


def with_auroc(target, name, setting, auroc):
    result = target.evaluators["cosine"]
    evaluators = {"cosine": replace(result, metrics={**result.metrics, "auroc": auroc})}
    return replace(target, name=name, setting=setting, evaluators=evaluators)


@pytest.fixture
def targets(results):
    day = results[0].targets[0]
    repeated = [with_auroc(day, f"{n}", "repeated", auroc) for n, auroc in enumerate((0.5, 0.7))]
    return [*repeated, with_auroc(day, "single", None, 0.99), with_auroc(day, "once", "once", 0.3)]


def test_targets_that_repeat_a_setting_are_summed_up(targets):
    (setting,) = settings(targets)
    assert (setting.name, setting.targets) == ("repeated", ("0", "1"))
    assert setting.mean["cosine"]["auroc"] == pytest.approx(0.6)
    assert setting.std["cosine"]["auroc"] == pytest.approx(0.02**0.5)


def test_a_repeated_setting_counts_once_in_the_mean(targets):
    assert means(targets)["cosine"]["auroc"] == pytest.approx((0.6 + 0.99 + 0.3) / 3)
    assert means(targets[:2])["cosine"]["auroc"] == pytest.approx(0.6)
