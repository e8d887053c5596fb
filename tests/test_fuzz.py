"""A sample of each campaign; `make fuzz` runs them in full."""

import pytest

from fuzz.campaign import run
from fuzz.formats import names

N_CASES = 100


@pytest.mark.parametrize("name", names())
def test_mutated_inputs_are_read_or_refused(name):
    tally = run(name, N_CASES, seed=1, n_jobs=1)
    assert tally.faults == {}
    assert tally.tried == N_CASES
    assert tally.passed > 0  # so the mutations leave something to read
    assert tally.clear > 0


def test_a_crash_is_a_fault_and_does_not_end_the_campaign():
    tally = run("tests.crashing_format", 10, n_jobs=1)
    assert (tally.tried, tally.passed, tally.clear) == (10, 6, 1)
    assert tally.faults.keys() == {3, 5, 7}
    assert "ended with -11" in tally.faults[3]
    assert "KeyError at crashing_format.py" in tally.faults[5]
    assert "message of 4000 characters" in tally.faults[7]
    again = run("tests.crashing_format", 1, n_jobs=1, first=5)
    assert again.faults == {5: tally.faults[5]}
