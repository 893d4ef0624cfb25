"""Policies are pure: who runs next follows from what there is and what it costs."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdengine.runtime.serve.costs import Costs
from sdengine.runtime.serve.policy import (
    POLICIES,
    Bucket,
    Decode,
    Item,
    Prepare,
    Step,
    Work,
    alone_s,
    left_s,
    step_level,
)

SMALL, LARGE = Bucket(model="m", height=64, width=64), Bucket(model="m", height=128, width=128)


class Table:
    """Seconds by size; a row more costs ``growth`` of the first."""

    def __init__(self, growth: float = 1.0) -> None:
        self.growth = growth

    def step(self, bucket: Bucket, rows: int) -> float:
        return bucket.width / 64 * (1 + self.growth * (rows - 1))

    def decode(self, bucket: Bucket) -> float:
        return bucket.width / 64

    def prepare(self, bucket: Bucket) -> float:
        return 0.1

    def switch(self, bucket: Bucket) -> float:
        return 5.0 if bucket.loras else 0.0


def item(key: int, **changes: Any) -> Item:
    return replace(Item(key=key, ticket=key, order=key, bucket=SMALL, rows=1, left=10, total=10, age=0.0), **changes)


def decide(waiting: list[Item], active: list[Item], *, growth: float = 1.0, policy: str = "step", **more: Any) -> Any:
    options = {"slots": lambda bucket: 4, "stepped": True, **more}
    return POLICIES[policy](waiting, active, Table(growth), **options)


def test_the_shortest_remaining_work_runs_first_where_batching_gains_nothing() -> None:
    assert decide([item(1, left=3), item(2, left=40, total=40)], []) == Step(SMALL, (1,))
    # also before one that holds a slot already
    assert decide([item(1, left=3, total=3)], [item(2, left=39, total=40)]) == Step(SMALL, (1,))


def test_what_costs_nothing_more_runs_together() -> None:
    turn = decide([item(k, left=k, total=k) for k in range(1, 7)], [], growth=0.0)
    assert turn == Step(SMALL, (1, 2, 3, 4))


def test_age_goes_before_length() -> None:
    long = item(1, left=40, total=40, age=4000.0)
    assert decide([long, item(2, left=4, total=4)], []) == Step(SMALL, (1,))


def test_deadlines_and_priorities() -> None:
    near = item(1, left=10, deadline=11.5)
    assert decide([item(2, left=9, total=9), near], []) == Step(SMALL, (1,))
    late = item(1, left=10, deadline=5.0)
    assert decide([item(2, left=9, total=9), late], []) == Step(SMALL, (2,))
    assert decide([item(2, left=9, total=9), item(1, priority=-1)], []) == Step(SMALL, (1,))


def test_buckets_share_no_launch_and_the_more_urgent_one_runs() -> None:
    turn = decide([item(1, bucket=LARGE), item(2), item(3)], [], growth=0.0)
    assert turn == Step(SMALL, (2, 3))


def test_preparing_and_decoding_take_turns_with_steps() -> None:
    running, done, new = item(1), item(2, left=0), item(3, prepared=False, left=1, total=1)
    assert decide([], [running, done]) == Decode(2)
    assert decide([], [running, done], stepped=False) == Step(SMALL, (1,))
    assert decide([new], [running]) == Prepare(3)
    assert decide([new], [running], stepped=False) == Step(SMALL, (1,))
    assert decide([new], []) == Prepare(3)
    assert decide([], []) is None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("growth", [0.0, 0.4, 1.0])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_all_are_done_and_none_waits_for_ever(policy: str, growth: float, data: st.DataObject) -> None:
    """Under any arrivals, each turn is one that can be done, and everything ends."""
    costs, now, ended, key = Table(growth), 0.0, 0, 0
    arrivals = data.draw(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 12), st.booleans()), max_size=12))
    coming = sorted(arrivals)
    waiting: dict[int, Item] = {}
    active: dict[int, Item] = {}
    born: dict[int, float] = {}
    stepped = True
    for _ in range(2000):
        while coming and coming[0][0] <= now:
            _, steps, large = coming.pop(0)
            key += 1
            born[key] = now
            new = item(key, left=steps, total=steps, prepared=False, bucket=LARGE if large else SMALL)
            waiting[key] = replace(new, alike=(new.bucket, steps))
        aged = [[replace(i, age=now - born[i.key]) for i in group.values()] for group in (waiting, active)]
        turn = POLICIES[policy](*aged, costs, slots=lambda bucket: 3, stepped=stepped)
        stepped = isinstance(turn, Step)
        if isinstance(turn, Prepare):
            waiting[turn.ticket] = replace(waiting[turn.ticket], prepared=True)
            now += 0.1
        elif isinstance(turn, Decode):
            assert active.pop(turn.key).left == 0
            now, ended = now + costs.decode(SMALL), ended + 1
        elif isinstance(turn, Step):
            everyone = {**waiting, **active}
            chosen = [everyone[k] for k in turn.keys]
            assert 1 <= len(chosen) <= 3
            assert all(i.prepared and i.left and i.bucket == turn.bucket for i in chosen)
            # the others give their slots back
            waiting = {k: i for k, i in everyone.items() if i.left and k not in turn.keys}
            active = {k: i for k, i in everyone.items() if not i.left}
            active |= {i.key: replace(i, left=i.left - 1) for i in chosen}
            now += costs.step(turn.bucket, len(chosen))
        elif coming:
            now = coming[0][0]
        else:
            break
    assert ended == len(arrivals)


def test_requests_with_other_loras_wait_until_changing_is_worth_it() -> None:
    other = replace(SMALL, loras="other")
    assert decide([item(1, left=9, total=9, bucket=other)], [item(2)]) == Step(SMALL, (2,))
    several = [item(k, left=9, total=9, bucket=other) for k in range(3, 9)]
    assert decide(several, [item(2)]) == Step(other, (3,))
    assert decide([item(1, age=500.0, bucket=other)], [item(2)]) == Step(other, (1,))


def test_batch_at_the_door_lets_nobody_in() -> None:
    begun = [item(1, left=5, alike="a"), item(2, left=5, alike="a")]
    assert decide([item(3, alike="a")], begun, policy="batch-at-the-door") == Step(SMALL, (1, 2))
    assert decide([item(1, alike="a"), item(2, alike="b"), item(3, alike="a")], [], policy="batch-at-the-door") == Step(
        SMALL, (1, 3)
    )
    assert decide([item(3, alike="a")], [item(1, left=0), item(2, left=0)], policy="batch-at-the-door") == Decode(1)


def test_first_come_sees_one_through() -> None:
    assert decide([item(1, left=40, total=40), item(2, left=1)], [], policy="fcfs") == Step(SMALL, (1,))
    assert decide([item(2, left=1)], [item(1, left=0)], policy="fcfs") == Decode(1)


def test_a_function_of_its_arguments_alone() -> None:
    """The module imports nothing that could tell the time, run threads or draw."""
    import sdengine.runtime.serve.policy as module

    assert step_level.__module__ == module.__name__
    assert not {"time", "threading", "asyncio"} & set(vars(module))


def test_costs_are_measured_and_estimated() -> None:
    costs = Costs()
    first = costs.step(SMALL, 2)
    assert first > 0 and costs.decode(SMALL) > 0
    for seconds in (9.0, 1.0, 1.1, 0.9):
        costs.note_step(SMALL, 2, seconds)
    assert costs.step(SMALL, 2) == pytest.approx(1.05)
    assert 1.05 < costs.step(SMALL, 4) < 2.1  # not measured: hoped to gain
    costs.note_step(SMALL, 4, 2.2)
    assert costs.step(SMALL, 3) == pytest.approx((1.05 + 2.2) / 2)
    assert costs.step(LARGE, 2) == pytest.approx(4.2)  # by its pixels
    costs.note("decode", SMALL, 0.5)
    assert costs.decode(LARGE) == pytest.approx(2.0)
    assert costs.step(Bucket(model="other", height=64, width=64), 1) > 0
    assert costs.step(replace(SMALL, loras="others"), 2) == costs.step(SMALL, 2)
    assert math.isclose(costs.table()["m 64x64"]["decode"], 0.5)  # type: ignore[arg-type]


def test_what_is_remembered_is_bounded() -> None:
    costs = Costs()
    for height in range(1, 3000):
        bucket = Bucket(model="m", height=height, width=64)
        costs.note_step(bucket, 2, 1.0)
        costs.note("decode", bucket, 1.0)
    assert len(costs.table()) <= 1000


def test_every_stage_counts_to_what_an_image_takes() -> None:
    prior = Work(bucket=replace(SMALL, height=1, width=1, stage="prior"), rows=2, evaluations=8)
    own = Work(bucket=SMALL, rows=1, evaluations=3)
    table = Table()
    in_prior = item(1, bucket=prior.bucket, rows=2, left=6, total=8, after=(own,))
    assert (left_s(in_prior, table), alone_s(in_prior, table)) == (6 / 32 + 3 + 1, 8 / 32 + 3 + 1)
    at_its_image = item(1, left=3, total=3, before=(prior,))
    assert (left_s(at_its_image, table), alone_s(at_its_image, table)) == (3 + 1, 8 / 32 + 3 + 1)
    assert in_prior.begun and at_its_image.begun and not item(2).begun
