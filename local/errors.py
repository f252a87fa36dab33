"""Errors of the local services; the message says what to do next."""


class LocalError(Exception):
    """A local service or its home is not as it has to be."""


class ServiceFailedError(LocalError):
    """A service ended, or was not ready in time; the message ends with its last log lines."""
