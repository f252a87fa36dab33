"""Inspect: what reads and changes nothing.

`status` says what was decided, `freshness` which source answers and what waits there, `rows_at`
what a table held at a time, `examine` what is wrong with an installation. `explain` tells what
features mean and where a value comes from.
"""
