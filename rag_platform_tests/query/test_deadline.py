"""The clock of a question."""

from __future__ import annotations

import pytest

from rag_platform.query.deadline import Clock


@pytest.mark.parametrize(("deadline_s", "stage_s"), [(1.0, 2.0), (2.0, 2.0), (60.0, 2.0)])
def test_no_stage_takes_all_that_is_left(deadline_s: float, stage_s: float) -> None:
    """A stage gets at most its own budget, and always leaves time for what replaces it when it fails."""
    clock = Clock(deadline_s)
    budget = clock.budget(stage_s)
    assert 0 < budget <= stage_s
    assert clock.left - budget > 0.3 * deadline_s


def test_nothing_is_left_after_the_deadline() -> None:
    """Late stages get no time, not less than none."""
    clock = Clock(0.0)
    assert clock.budget(1.0) == 0.0
    assert clock.left <= 0
