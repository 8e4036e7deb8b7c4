"""Numbers of claims: never the same twice, in one process or in its children."""

import json
import os
import random

import pytest

from sluicegate.application.budgets.claim_numbers import draw_claim_number


def test_numbers_are_different_and_within_what_doubles_hold() -> None:
    """1 to 2**52, all over that range; what an application does to its own generator changes nothing."""
    random.seed(1)
    numbers = [draw_claim_number() for _ in range(5_000)]
    random.seed(1)
    numbers += [draw_claim_number() for _ in range(5_000)]
    assert len(set(numbers)) == 10_000
    assert min(numbers) >= 1
    assert 2**51 < max(numbers) <= 2**52
    assert sum(number & 1 for number in numbers) in range(4_500, 5_500)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_draws_other_numbers_than_its_parent() -> None:
    """Numbers that were drawn ahead belong to the process that drew them."""
    draw_claim_number()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps([draw_claim_number() for _ in range(300)]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        of_child = set(json.loads(told.read()))
    os.waitpid(child, 0)
    assert len(of_child) == 300
    assert not of_child & {draw_claim_number() for _ in range(300)}
