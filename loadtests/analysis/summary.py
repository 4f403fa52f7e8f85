"""Summarise a run: all its measures, and its verdict."""

from __future__ import annotations

from loadtests import results
from loadtests.analysis import measures, recovery, replica_capacity, scaling, verdict
from loadtests.analysis.measures import Run
from loadtests.results import Summary


def summarise(run: Run, name: str, environment: results.Environment, load_digest: str | None = None) -> Summary:
    """Return all measures of a run, and its verdict."""
    phases, generator, budget = measures.phases(run), measures.generator(run), measures.budget(run)
    recovered, capacity, slo = recovery.recovery(run), measures.capacity(run), run.plan.scenario.slo.record()
    length, buckets = measures.buckets(run)
    cluster, timeline = scaling.measure(run, run.watched, recovered) if run.watched else (None, run.timeline)
    capacity = replica_capacity.with_replica(run, capacity, cluster) if capacity else None
    judged = verdict.judge(
        slo,
        phases,
        generator=generator,
        recovery=recovered,
        capacity=capacity,
        stopped=run.stopped,
        by_rule=run.by_rule,
        cluster=cluster,
    )
    return Summary(
        scenario=name,
        about=run.plan.scenario.about,
        seed=run.plan.seed,
        load_digest=load_digest,
        base_per_s=run.plan.base,
        duration_s=run.seconds,
        stopped=run.stopped,
        verdict=judged,
        slo=slo,
        environment=environment,
        generator=generator,
        phases=phases,
        recovery=recovered,
        budget=budget,
        capacity=capacity,
        revisions=measures.revisions(run),
        kinds=measures.kinds(run),
        bucket_s=length,
        buckets=buckets,
        timeline=timeline,
        histograms=measures.histograms(run),
        cluster=cluster,
    )
