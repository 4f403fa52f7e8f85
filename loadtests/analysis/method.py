"""List the constants that say how a run is measured and judged."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests import results

DELAY_MS, DELAY_PART = 5.0, 0.25  # the p99 of the delay may be so much, or this part of the SLO's p95 if that is more
MAX_BUCKETS = 300  # of a run's values over time
EDGES_PER_DECADE = 20  # of histograms
PHASES = ("scheduling", "initialising", "pulling", "starting", "getting ready")  # each ends with the next moment
SETTLE_SECONDS = 1.0  # after the wanted shares changed, while routers follow
AHEAD_SECONDS = 5.0  # before they changed in the status, while routers may have been ahead of it
LATE_SECONDS = 0.05  # a request that left no later than this after its intended time counts as sent in time
LATE_SHARE = 0.01  # of late ones is allowed
START_SECONDS = 5.0  # after a pod became ready, in which failed requests are counted as near its start
WINDOW_SECONDS, WINDOW_REQUESTS = 1.0, 20  # of the rolling p95: at least so long, and so many requests at base rate
WINDOW_STEP = 0.1  # seconds from one window's start to the next one's
WINDOWS_APART = 10  # windows in a row that hold between two breaches; after fewer it is still the same one
HOLD_SECONDS = 10.0  # for which the SLO must hold again to be recovered
END_SECONDS = 1.0  # before a pod began to terminate and after it was gone, counted as near its end
RAMP_STEP = 0.1  # seconds: how finely a rate that changes is followed
SAME_SECONDS = 5.0  # within which watches of different resources notice the same outage
EVENT_SECONDS = 1.0  # that an event may be seen after what it is about
EVENTS_FROM, MAX_EVENTS = -1.0, 500  # seconds on the run's axis, and how many events are kept
FRESH_SECONDS = 3.0  # for which what a pod said of itself counts as its state
Z_99 = 2.5758293035489  # quantile of the normal distribution, two-sided 99 %
MAX_TIMES = 5  # that a sentence names
EXIT_CODES: dict[results.VerdictOutcome, int] = {"Passed": 0, "Failed": 1, "Invalid": 2, "Error": 3}
FEW = 500  # requests; of fewer, one hiccup of the machine already delays 1 %
BUSY_SHARE = 0.95  # of a core: then answers are read late, even if requests leave in time


def late_allowed(judged: Sequence[results.PhaseResult]) -> float:
    """Return the share of requests that may leave late."""
    return max(LATE_SHARE, LATE_SHARE * FEW / max(1, sum(phase.counts.sent for phase in judged)))
