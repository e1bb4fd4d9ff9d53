"""Fixtures: a cohort of each profile, nobody moved yet."""

import pytest
from cohorts import Cohort, malicious, semi_honest


@pytest.fixture
def cohort():
    return Cohort(semi_honest())


@pytest.fixture
def signed_cohort():
    return Cohort(malicious())
