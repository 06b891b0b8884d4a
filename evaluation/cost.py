"""What all evaluators cost, said beforehand, and the one that is left out if it costs too much."""

import time
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, isqrt

import torch

from evaluation.benchmark import draws
from evaluation.report.text import plain
from evaluation.subject import Job, Subject
from model.evaluators import num_pairs
from model.pairwise import pairs_per_tile, relational_logits, tile_memory
from model.relation import RelationalTransformer
from runtime.distributed import Process

COSTLY = "relation-knn"
# Relational pairs per process, the most that ``all`` compares for it: hours on a CPU's two cores.
AFFORDABLE = {"cpu": 50_000_000, "cuda": 5_000_000_000}


def affordable(
    subject: Subject, jobs: Sequence[Job], asked: Sequence[str], process: Process
) -> Subject:
    """The subject, without relation-knn if ``all`` is asked for, relation-knn is not named as well
    and it compares more pairs than ``AFFORDABLE``; the first process says so, and the cost.

    Raises:
        EvaluatorError: fewer classes are known than the option ``top`` asks for.
        PackError: a target has no known or no unknown test, or too few references.
    """
    relation = subject.network.trained.network.relation
    if "all" not in asked or relation is None:
        return subject
    names, limit = subject.config.evaluators, AFFORDABLE[process.device.type]
    costly = _pairs([COSTLY], subject, jobs) // process.world_size
    if costly > limit and COSTLY not in asked:
        names = tuple(name for name in names if name != COSTLY)
        if process.is_first:
            print(
                f"note: {COSTLY} is left out: it would compare {costly:,} pairs per process, and "
                f"all includes it up to {limit:,}; name it beside all to compute it"
            )
    if process.is_first:
        pairs = _pairs(names, subject, jobs)
        rate = _pairs_per_second(relation, subject, process.device)
        minutes = ceil(pairs / process.world_size / rate / 60)
        print(
            f"{plain(subject.network.name)}: {pairs:,} relational pairs, about {minutes:,} "
            f"min at {rate:,.0f} pairs/s per process"
        )
    return replace(subject, config=replace(subject.config, evaluators=names))


def _pairs(names: Sequence[str], subject: Subject, jobs: Sequence[Job]) -> int:
    """The relational pairs of all targets."""
    config = subject.config
    return sum(
        num_pairs(names, torch.from_numpy(rows.reference_class), len(rows.test), config.options)
        for job in jobs
        for target in map(job.protocol.target, job.targets)
        for _, rows in draws(job.protocol, target, job.pack, config.references)
    )


def _pairs_per_second(
    relation: RelationalTransformer, subject: Subject, device: torch.device
) -> float:
    """Of one tile, measured after another one."""
    options, width = subject.config.options, relation.proj.weight.shape[1]
    memory, dtype = options.memory or tile_memory(device), getattr(torch, options.precision)
    features = torch.rand(isqrt(pairs_per_tile(relation, memory, dtype)), width, device=device)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        relational_logits(relation, features, features, memory=memory, dtype=dtype).sum().item()
        seconds = time.perf_counter() - started
    return len(features) ** 2 / seconds
