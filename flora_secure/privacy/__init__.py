"""Distributed differential privacy: clipping, exact noise, calibration, accounting, and the statement about all of it.

Nothing is imported here, so that `flora_secure.privacy.clipping` costs numpy and no accountant.
"""
