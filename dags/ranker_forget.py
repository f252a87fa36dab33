"""Forget a shopper: erase what is stored of them, and let no extraction bring them back.

**forget**: record that it begins (a keyed hash, never the id) → delete the shopper's published
lists → write every partition of the lake without them, and delete the earlier versions of its
files and logs → the same in the backup → **verify** that the lake is what the ledger says.

- *Schedule*: none. *Trigger*: fill in the form; who triggered it is recorded.
- A rerun of a red task goes on where it stopped.
- Airflow keeps the form of a run: delete the run once it is green, or use the command line.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task
from freshrank_airflow import RETRIES, current_installation, who_triggered


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    params={
        "shopper": Param(type="string", minLength=1, title="The shopper's id, as the shop has it"),
        "reason": Param(type="string", minLength=1, title="Reason (must not say who it is)"),
        "shop": Param(None, type=["null", "string"], title="Shop (empty: the installation's)"),
    },
    tags=["freshrank"],
    doc_md=__doc__,
)
def ranker_forget() -> None:
    """One shopper of one shop."""

    # In the model chain's slot: nothing that reads or writes groups and state runs meanwhile.
    @task(pool="ranker")
    def forget(params: dict[str, Any]) -> dict[str, Any]:
        from pipelines import maintain

        shopper, reason = params["shopper"], params["reason"]
        return maintain.forget(current_installation(), shopper, reason, who_triggered()).as_dict()

    @task
    def verify() -> dict[str, Any]:
        from pipelines import maintain

        return maintain.verify(current_installation()).required().as_dict()

    forget() >> verify()


ranker_forget()
