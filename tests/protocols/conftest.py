"""Fixtures: a cohort of each kind, nobody moved yet."""

import pytest
from cohorts import Cohort, hybrid, malicious, semi_honest


@pytest.fixture
def cohort():
    return Cohort(semi_honest())


@pytest.fixture
def signed_cohort():
    return Cohort(malicious())


@pytest.fixture
def hybrid_cohort():
    return Cohort(hybrid())
