"""The commands the services run, as data.

`local` starts them on one machine and docker-compose.yml starts the same ones in containers; a
test compares the two. Hosts, ports, databases and secrets come from the environment, so that a
command never carries one.
"""

from collections.abc import Mapping
from types import MappingProxyType

RANKER_POOL = "ranker"
RANKER_POOL_SLOTS = 1
RANKER_POOL_DESCRIPTION = "The model chain: one interval at a time"

COMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mlflow": ("mlflow", "server", "--app-name", "freshrank"),
        "airflow-migrate": ("airflow", "db", "migrate"),
        "airflow-pool": (
            *("airflow", "pools", "set"),
            *(RANKER_POOL, str(RANKER_POOL_SLOTS), RANKER_POOL_DESCRIPTION),
        ),
        "airflow-api-server": ("airflow", "api-server"),
        # The log servers would listen on every interface; the logs are on a shared disk anyway.
        "airflow-scheduler": ("airflow", "scheduler", "--skip-serve-logs"),
        "airflow-dag-processor": ("airflow", "dag-processor"),
        "airflow-triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
        "airflow-worker": ("airflow", "celery", "worker", "--skip-serve-logs"),
    }
)

CORE_COMPONENTS = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor")
AIRFLOW_COMPONENTS = (*CORE_COMPONENTS, "airflow-triggerer")
"""The triggerer serves deferrable operators; what has none does without it."""
