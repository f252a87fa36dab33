"""What can go wrong on one machine, said so that a person knows what to do next."""


class LocalError(Exception):
    """A local service or its home is not as it has to be; the message says the way out."""


class ServiceFailedError(LocalError):
    """A service ended, or was not ready in time; the message ends with its last log lines."""
