"""Everything Freshrank needs on one machine: PostgreSQL, MLflow and Airflow, on loopback.

`python -m local up` starts them, `make demo` replays a shop on them, and tests borrow them
through `postgres.server` and `stack`.
"""

from local.services import Stack, stack

__all__ = ["Stack", "stack"]
