"""Names of columns and lake tables, in one place.

Tables of the lake, all partitioned by `interval_start`:

| name | grain | content |
|---|---|---|
| `changes/<table>` | change | the row, `_misfits`, `_op`, `_committed_at`, `_position`, … |
| `key_index/<table>` | key | what a cursor has extracted; plain Parquet, not partitioned |
| `valid/<table>` | change | the same without `_misfits`, sound rows only |
| `quarantine/<table>` | change | the same and `_reasons` |
| `state/events` | event version | normalised events, the last version of a key stands |
| `state/items`, `state/periods` | item, item-period | current rows at the interval's end |
| `state/shoppers` | shopper | the shopper table's ids at the interval's end |
| `state/vocabulary` | feature × value | append-only integer codes (`shared/models/vocabulary.py`) |
| `state/shown` | showing version | what logged lists showed; the last version of a key stands |
| `state/factors_shoppers` | shopper | latent factors known at the interval's start |
| `state/factors_items` | item | the same |
| `state/open_groups` | group × item | logged groups whose attribution window is open yet |
| `groups/<surface>` | group × item | features and `label`, sorted by group and item |
| `group_index/<surface>` | group | time, maturity, holdout, ideal DCG, candidate recall |
| `serving/<surface>` | shopper × item | features of every shopper at the interval's end |
| `scores/<surface>` | group × model | NDCG@10, MRR, recall@10 |
"""

from typing import Final

INTERVAL: Final = "interval_start"

OP: Final = "_op"
COMMITTED_AT: Final = "_committed_at"
POSITION: Final = "_position"
TRANSACTION: Final = "_transaction"
REASONS: Final = "_reasons"
MISFITS: Final = "_misfits"
"""Which values of a change its declared types cannot hold; they are null in their columns."""
CHANGE_COLUMNS: Final = (OP, COMMITTED_AT, POSITION, TRANSACTION)

INSERT: Final = "insert"
UPDATE: Final = "update"
DELETE: Final = "delete"

EXPIRED: Final = "expired"
"""In a manifest's details: which of its lake tables the declared retention has emptied."""

AUTO_ADDED: Final = "taken"
"""In a manifest's details: the undeclared columns that `new_columns: take` captured, and types."""

GROUP: Final = "group_id"
SHOPPER: Final = "shopper_id"
ITEM: Final = "item_id"
LABEL: Final = "label"

GROUP_TIME: Final = "group_time"
MATURE_AT: Final = "mature_at"
MEMORY: Final = "memory_holdout"
RELEVANT: Final = "n_relevant"
FOUND: Final = "n_found"
CANDIDATES: Final = "n_candidates"
IDEAL_DCG: Final = "ideal_dcg_at_10"

BASELINE: Final = "pair_orders"
"""The feature by which the baseline ranks; groups always carry it."""
