"""The one error of this package."""

from flora_secure.errors import InputError


class DataError(InputError):
    """A data set, folder or partition that cannot be had; one line that names the value and the remedy."""
