# SPDX-License-Identifier: Apache-2.0
"""The differential proof: the kernel's verdict is the reference's, for every input.

``python -m tests.prove --triples 10000000 [--seed N]``, as root. Random
policies, identities and flows; the reference reads the policy, the kernel's own
``decide()`` and ``classify()`` look the compiled tables up.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from aegis.bpf.generation import action_bits
from aegis.bpf.judge import Judge, Judgement
from aegis.policy.compile import compile_policy
from aegis.policy.decide import decide
from aegis.policy.model import Decision, Flow, Identity, Policy, Reason, Resolution
from tests.policy.generate import edges, make_flow, make_identity, make_policy, make_resolution

QUESTIONS_EACH = 1000  # of one policy
RULED = {Reason.RULE_ALLOWS, Reason.RULE_DENIES, Reason.UNTRUSTED}


@dataclass(frozen=True)
class Difference:
    """Where kernel and reference part: a regression test in the making."""

    seed: str
    policy: Policy
    resolution: Resolution
    identity: Identity
    flow: Flow
    wanted: Decision
    got: Judgement

    def __str__(self) -> str:
        names = ("seed", "policy", "resolution", "identity", "flow", "wanted", "got")
        return "\n".join(f"{name}: {getattr(self, name)!r}" for name in names)


def prove(triples: int, seed: int, seen: Counter[str]) -> Iterator[Difference]:
    """Yield every difference; *seen* counts what was compared, by reason and scope."""
    judge = Judge()
    try:
        for number in range(0, triples, QUESTIONS_EACH):
            count = min(QUESTIONS_EACH, triples - number)
            yield from prove_policy(judge, f"{seed}/{number}", count, seen)
    finally:
        judge.close()


def prove_policy(judge: Judge, seed: str, count: int, seen: Counter[str]) -> Iterator[Difference]:
    rng = Random(seed)  # noqa: S311  # reproducible, no secret
    policy, resolution = make_policy(rng), make_resolution(rng)
    judge.apply(compile_policy(policy, resolution))
    around = edges(policy)
    questions: list[tuple[Identity, Flow]] = []
    while len(questions) < count:
        questions.append((make_identity(rng, policy), make_flow(rng, around)))
    for (identity, flow), got in zip(questions, judge.ask(questions), strict=True):
        wanted = decide(policy, resolution, identity, flow)
        seen[f"{wanted.reason} {wanted.scope}"] += 1
        if not same(policy, wanted, got):
            yield Difference(seed, policy, resolution, identity, flow, wanted, got)


def same(policy: Policy, wanted: Decision, got: Judgement) -> bool:
    if (wanted.verdict, wanted.reason, wanted.scope) != (got.verdict, got.reason, got.scope):
        return False
    if action_bits(wanted.actions) != got.actions or wanted.actions.reports != got.reports:
        return False
    rule = policy.rules[got.app - 1] if got.app else None
    return wanted.reason not in RULED or wanted.rule is rule


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev prove", description=__doc__)
    parser.add_argument("--triples", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000_007, metavar="N")
    arguments = parser.parse_args()
    seen: Counter[str] = Counter()
    began = time.monotonic()
    differences = 0
    for difference in prove(arguments.triples, arguments.seed, seen):
        differences += 1
        if differences <= 3:
            print(difference, file=sys.stderr)
    for what, count in sorted(seen.items()):
        print(f"{what:<24}{count:>14,}")
    seconds = time.monotonic() - began
    print(
        f"{sum(seen.values()):,} triples, {differences} differences, "
        f"seed {arguments.seed}, {seconds:.0f} s"
    )
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
