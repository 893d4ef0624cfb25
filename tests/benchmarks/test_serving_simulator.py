"""The simulator loses nothing, takes what the costs say, and tells policies and routers apart."""

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serving_load
    import serving_simulator

    return serving_load, serving_simulator


def test_a_request_alone_takes_what_its_parts_cost(tools: tuple[Any, Any]) -> None:
    load, simulator = tools
    table = simulator.h100()
    arrival = load.Arrival(at=3.0, steps=20, guided=True, size=1024, edited=False)
    for policy in ("step", "fcfs", "batch-at-the-door"):
        (one,) = simulator.simulate([arrival], table, policy)
        assert one.latency == pytest.approx(0.020 + 20 * 0.0308 + 0.064) == one.alone
        assert one.wait == 0
    assert load.Arrival(at=0.0, steps=20, guided=True, size=1024, edited=True).evaluations == 12


@pytest.mark.parametrize("router", ["random", "round robin", "fewer requests of two", "least work"])
def test_all_are_served_once(tools: tuple[Any, Any], router: str) -> None:
    load, simulator = tools
    table = simulator.h100()
    arrivals = load.trace(4.0, 30, table.sizes)
    for policy in ("step", "batch-at-the-door"):
        served = simulator.simulate(arrivals, table, policy, replicas=3, router=router)
        assert sorted(one.arrival.at for one in served) == [a.at for a in arrivals]
        assert all(one.latency >= one.wait >= 0 and one.latency > 0.5 * one.alone for one in served)


def test_policies_and_routers_differ_as_they_should(tools: tuple[Any, Any]) -> None:
    load, simulator = tools
    table = simulator.h100()
    arrivals = load.trace(2.1, 150, table.sizes)

    def p99(policy: str, **options: Any) -> float:
        return float(load.figures(simulator.simulate(arrivals, table, policy, **options))["slowdown p99"])

    assert p99("step") < 0.5 * p99("batch-at-the-door") < p99("fcfs")
    busy = load.trace(8.4, 60, table.sizes)
    found = {
        router: load.figures(simulator.simulate(busy, table, "step", replicas=4, router=router))["slowdown p99"]
        for router in ("random", "least work")
    }
    assert found["least work"] < found["random"]


def test_the_same_trace_for_the_same_seed(tools: tuple[Any, Any]) -> None:
    load, _ = tools
    one, same, other = (load.trace(5.0, 200, (64, 128), seed) for seed in (0, 0, 1))
    assert one == same != other
    assert len(one) == pytest.approx(1000, rel=0.1)
    assert {a.size for a in one} == {64, 128} and {a.steps for a in one} == {4, 8, 20, 30, 40}
    assert sum(a.edited for a in one) == pytest.approx(100, rel=0.4)
