"""Lag: from commit to durable, by the shop's clock, in memory that rows do not fill."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from local.servers.postgres import PostgresServer
from pipelines import extract as stage
from pipelines.extract.lag import CommitTimes
from pipelines.extract.stage import extract
from pipelines.inspect import doctor, freshness
from pipelines.shared.intervals import utc
from pipelines.shared.run import Installation
from pipelines.shared.settings import Settings
from tests.extract.postgres_shop import PostgresTransaction, database
from tests.extract.test_stage import TABLE, WEEKS, living_source, run_of

TIME = pa.timestamp("us", tz="UTC")
NOW = datetime(2017, 1, 9, tzinfo=UTC)


@given(st.lists(st.lists(st.integers(-5, 10**6), max_size=20), max_size=5))
def test_it_is_the_maximum_and_the_median_however_the_rows_come(batches: list[list[int]]) -> None:
    times = CommitTimes()
    times._AT_ONCE = 7
    for batch in batches:
        times.add(pa.array([NOW - timedelta(seconds=lag) for lag in batch], TIME))
    lags = sorted((lag for batch in batches for lag in batch), reverse=True)
    expected = {"max": lags[0], "median": lags[(len(lags) - 1) // 2]} if lags else None
    assert times.lag_s(NOW) == (expected or {"max": None, "median": None})


def test_parts_of_a_second_count_from_its_start_also_before_1970() -> None:
    times = CommitTimes()
    times.add(pa.array([utc("1969-12-31T23:59:59.5")], TIME))
    assert times.lag_s(utc("1970-01-01T00:00:01")) == {"max": 2, "median": 2}


def test_the_manifest_and_the_log_carry_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = living_source()
    source.now = utc("2017-01-09T00:00:10")
    with caplog.at_level(logging.INFO):
        extract(run_of(tmp_path, WEEKS[0]), TABLE, source)
    manifest = run_of(tmp_path, WEEKS[0]).ledger.manifest("extract", TABLE, WEEKS[0])
    assert manifest is not None
    # The oldest was committed on the 1st at midnight; of twelve the sixth on the 5th at noon.
    assert manifest.details["lag_s"] == {
        "max": 8 * 86400 + 10,
        "median": 3 * 86400 + 43200 + 10,
    }
    assert manifest.details["bytes"] > 12 * 3 * 8
    assert "12 rows" in caplog.text
    assert f"at most {8 * 86400 + 10} s" in caplog.text


def pending(installation: Installation) -> dict[str, int | None]:
    (source,) = freshness.sources(installation)
    return {each.table: each.pending_rows for each in source.tables}


@pytest.mark.services
def test_changes_that_wait_at_the_source_are_counted(
    postgres: PostgresServer, tiny_settings: Settings
) -> None:
    with database(postgres) as url:
        settings = tiny_settings.model_copy(update={"connections": {"tiny": SecretStr(url)}})
        installation = Installation.open(settings, "tiny")
        stage.install(url, installation.shop, utc("2017-01-01"))
        sound = {"sku": "1", "kind": None, "maker": None, "amount": None}
        slow = PostgresTransaction(url, installation.shop, "2017-01-03")
        slow.insert(TABLE, sound | {"sku": "slow"})
        for day in (4, 5, 10):
            write = PostgresTransaction(url, installation.shop, f"2017-01-{day:02d}")
            write.insert(TABLE, sound | {"sku": f"{day}"})
            write.commit()
        assert pending(installation) == {TABLE: 3, "users": 0, "shown": 0, "actions": 0}
        stage.run(installation.run(WEEKS[0]), TABLE)
        assert pending(installation)[TABLE] == 1
        slow.commit()
        told = [each for each in doctor.examine(settings, "tiny") if each.subject == "pending"]
        assert [each.message for each in told] == ["shop: not extracted yet: 2 of articles"]
