"""Secure sums in Flower, for any model and strategy: `SecureSum` in the ServerApp, `secure_sum_mod()` in the ClientApp.

docs/flower-secure-sum.md says how, and what it protects.
"""

from flora_secure.engine.flower.sums.mod import secure_sum_mod
from flora_secure.engine.flower.sums.site_policy import write_policy
from flora_secure.engine.flower.sums.strategy import SecureSum
from flora_secure.engine.flower.sums.weights import ByExamples

__all__ = ["ByExamples", "SecureSum", "secure_sum_mod", "write_policy"]
