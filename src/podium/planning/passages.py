"""A passage of traffic in sentences, before it begins: what the strategy does and what the candidate is judged by.

Called by `preview`.
"""

from podium.planning.judging import step_cap
from podium.planning.looks import analysis_settings
from podium.resources.deployment import RolloutSettings, Threshold
from podium.resources.quantities import format_duration
from podium.resources.route import StickyKey
from podium.resources.strategies import (
    AbTestStrategy,
    BlueGreenStrategy,
    CanaryStrategy,
    ShadowStrategy,
    SteppedStrategy,
)


def passage(settings: RolloutSettings, stable: str, candidate: str) -> list[str]:
    """In the order in which things would happen."""
    strategy = settings.strategy
    if isinstance(strategy, ShadowStrategy):
        then = _steps(strategy, stable, candidate)
        if strategy.then == "hold":
            then = f"Then it waits for a person: `podium rollout promote` moves all traffic to {candidate} at once."
        return [*_copies(strategy, candidate), then, *_judgement(settings)]
    if isinstance(strategy, CanaryStrategy) and strategy.baseline:
        words = (
            f"It is compared with fresh replicas of {stable}, as many and with as many requests as it has."
        )
        return [_steps(strategy, stable, candidate), words, *_judgement(settings)]
    if isinstance(strategy, SteppedStrategy):
        return [_steps(strategy, stable, candidate), *_judgement(settings)]
    if isinstance(strategy, AbTestStrategy):
        return [*_split(strategy, stable, candidate), *_judgement(settings)]
    if isinstance(strategy, BlueGreenStrategy):
        flip = (
            f"after {format_duration(strategy.preview_for)} of preview"
            if strategy.auto_promote
            else "when someone promotes it"
        )
        return [
            f"{candidate} can be previewed with the header {strategy.preview_header}: true.",
            f"All traffic flips from {stable} to {candidate} {flip}; "
            f"{stable} stays warm for {format_duration(strategy.keep_old)}.",
        ]
    return [f"{candidate} replaces {stable} as soon as it is ready, unjudged."]


def _steps(strategy: SteppedStrategy, stable: str, candidate: str) -> str:
    steps = []
    for step in strategy.steps:
        length = f"{step.requests:,} requests" if step.requests else format_duration(step.duration or 0.0)
        steps.append(f"{step.weight} % for {length} (at most {format_duration(step_cap(step))})")
    return f"Traffic moves from {stable} to {candidate}: {', then '.join(steps)}, then all of it."


def _copies(strategy: ShadowStrategy, candidate: str) -> list[str]:
    sentences = [
        f"First {candidate} gets copies of {strategy.percent:g} % of the requests until it has answered "
        f"{strategy.requests:,} (at most {format_duration(strategy.max_duration)}); nobody gets its answers."
    ]
    limits = strategy.compare
    if limits is not None:
        asked = [
            *([f"{limits.agreement:.4g} of the classes agree"] if limits.agreement is not None else []),
            *([f"numbers lie {limits.distance:.4g} apart at most"] if limits.distance is not None else []),
        ]
        sentences.append(f"It goes on when it is proven that {' and '.join(asked)}.")
    return sentences


def _split(strategy: AbTestStrategy, stable: str, candidate: str) -> list[str]:
    whose = "of requests, each drawn by itself,"
    if strategy.sticky is not None:
        whose = f"of users, told apart by {_key(strategy.sticky)},"
    then = {
        "hold": "a person promotes or aborts it",
        "promote": f"{candidate} is promoted if the analysis finds it good enough",
        "rollback": f"all traffic goes back to {stable}",
    }[strategy.on_end]
    until = f"{strategy.end}; then {then}" if strategy.end else then
    return [f"{strategy.weight} % {whose} meet {candidate} and the others {stable}, until {until}."]


def _key(sticky: StickyKey) -> str:
    if sticky.claim is not None:
        return f"the claim {sticky.claim} of their token"
    return f"the header {sticky.header}" if sticky.header is not None else f"the cookie {sticky.cookie}"


def _judgement(settings: RolloutSettings) -> list[str]:
    analysis = analysis_settings(settings)
    limits = [_limit(limit) for limit in settings.analysis.thresholds]
    if analysis.assignment == "user":
        judged = ["liveness", *limits]
        return [f"Users are no independent draws, so nothing is compared. Judged by {', '.join(judged)}."]
    if not analysis.comparisons and not analysis.thresholds:
        return ["Nothing but liveness is judged: the analysis is turned off."]
    judged = []
    if analysis.error_rate:
        judged.append(f"errors (margin {analysis.error_rate.absolute_margin:.1%})")
    if analysis.refusal_rate:
        judged.append(f"refusals (margin {analysis.refusal_rate.absolute_margin:.1%})")
    if analysis.latency:
        latency = analysis.latency
        judged.append(f"requests over {latency.threshold_ms:g} ms (margin {latency.absolute_margin:.1%})")
    if analysis.quantile:
        quantile = analysis.quantile
        judged.append(f"p{quantile.quantile * 100:g} (at most {quantile.relative_margin:.0%} higher)")
    judged += limits
    return [f"Judged by {', '.join(judged)}; a false rollback has a chance of at most {analysis.alpha:.1%}."]


def _limit(limit: Threshold) -> str:
    most = format_duration(limit.max_latency) if limit.max_latency else f"{limit.max or 0:.3g}"
    return f"{limit.metric} at most {most}"
