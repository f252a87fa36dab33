"""Publishing a real model's lists, into SQLite and into PostgreSQL."""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from local.servers.postgres import PostgresServer
from pipelines import publish
from pipelines.publish.lists import UnsoundScores
from pipelines.publish.stage import NotServed
from pipelines.publish.table import PublishedTable, Stamp, TableUnusable
from pipelines.shared.errors import CorruptPartition, FeatureMismatch, SourceUnavailable
from pipelines.shared.intervals import utc
from pipelines.shared.lake import Lake
from pipelines.shared.ledger import Manifest
from pipelines.shared.models import booster
from pipelines.shared.run import Run
from tests.evaluate.real_groups import (
    FEATURES,
    SHOP,
    Installation,
    MemoryRegistry,
    MemoryTracker,
    build,
)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A first model is champion, and two weeks are served; read only."""
    from pipelines import evaluate, promote

    folder = tmp_path_factory.mktemp("published")
    made = Installation.at(folder, folder / "built", build(Lake(str(folder / "built"), SHOP)))
    run = made.run(0, 5)
    made.trained(run, made.fit(run, "first"))
    evaluate.run(run, MemoryTracker())
    assert promote.promote(run, MemoryRegistry()).champion == 1
    for number in (4, 5):
        step = made.run(number).interval
        rows = run.lake.read("groups/basket", [step])
        pairs = rows.group_by(["shopper_id", "item_id"], use_threads=False).aggregate(
            [(name, "max") for name in FEATURES]
        )
        named = pairs.rename_columns(["shopper_id", "item_id", *FEATURES])
        run.lake.replace("serving/basket", step, named)
    return made


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty shop database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.connect("shop") as connection:
        connection.execute("drop table if exists public.freshrank_basket cascade")
    return server.url("shop")


both = pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("postgres", marks=pytest.mark.services)], indirect=True
)
postgres_only = pytest.mark.parametrize("url", ["postgres"], indirect=True)


def at(champion: Installation, url: str, number: int) -> Run:
    """The run of a week, its shop at `url`."""
    run = champion.run(number)
    settings = run.settings.model_copy(update={"connections": {SHOP: sa_secret(url)}})
    return replace(run, settings=settings)


def sa_secret(url: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(url)


def read(url: str, query: str = "select * from freshrank_basket") -> list[Any]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(query))
        return list(result.mappings()) if result.returns_rows else []


@both
def test_every_shopper_has_the_champions_list(champion: Installation, url: str) -> None:
    run = at(champion, url, 4)
    published = publish.run(run)
    rows = read(url, "select * from freshrank_basket order by shopper_id, rank")
    served = run.lake.read("serving/basket", [run.interval])
    assert published.rows == len(rows)
    assert published.shoppers == len(set(served["shopper_id"].to_pylist()))
    assert {type(row["shopper_id"]) for row in rows} == {int}
    assert {row["version"] for row in rows} == {1}
    assert {str(row["interval_start"])[:10] for row in rows} == {f"{run.interval.start:%Y-%m-%d}"}
    path = run.lake.local_root / run.ledger.version(1).artifact
    scores = booster.score(path, served, 1)
    keyed = zip(
        served["shopper_id"].to_pylist(), served["item_id"].to_pylist(), scores, strict=True
    )
    best: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for shopper, item, score in keyed:
        best[shopper].append((-score, item))
    assert [(row["shopper_id"], row["rank"], row["item_id"]) for row in rows] == [
        (shopper, rank, item)
        for shopper in sorted(best)
        for rank, (_, item) in enumerate(sorted(best[shopper])[:20], 1)
    ]


def test_publishing_needs_no_mlflow(champion: Installation, tmp_path: Path) -> None:
    run = at(champion, f"sqlite:///{tmp_path}/shop.db", 4)
    away = {"mlflow_uri": sa_secret("http://user:word@127.0.0.1:9")}
    run = replace(run, settings=run.settings.model_copy(update=away))
    assert publish.run(run).version == 1


@both
def test_a_rerun_replaces_and_tells_the_ledger_once(champion: Installation, url: str) -> None:
    run = at(champion, url, 5)
    first = publish.run(run)
    count = len(run.ledger.manifests("publish"))
    assert publish.run(run) == first
    assert len(read(url)) == first.rows
    assert len(run.ledger.manifests("publish")) == count


@both
def test_older_lists_do_not_overwrite_newer_ones(champion: Installation, url: str) -> None:
    newer = publish.run(at(champion, url, 5))
    older = publish.run(at(champion, url, 4))
    assert older.rows == 0
    assert older.kept is not None
    assert "later interval" in older.kept
    assert len(read(url)) == newer.rows
    assert {str(row["interval_start"])[:10] for row in read(url)} == {"2017-02-13"}


@both
def test_a_failure_on_the_way_leaves_the_old_lists(
    champion: Installation, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.run(at(champion, url, 4))
    before = read(url)
    inserted = PublishedTable._insert

    def dying(self: PublishedTable, connection: sa.Connection, rows: pa.Table) -> None:
        inserted(self, connection, rows.slice(0, 10))
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(PublishedTable, "_insert", dying)
        with pytest.raises(RuntimeError, match="killed"):
            publish.run(at(champion, url, 5))
    assert read(url) == before

    monkeypatch.setattr(
        booster, "score", lambda path, rows, threads: rows["popularity"].to_numpy() * float("nan")
    )
    with pytest.raises(UnsoundScores):
        publish.run(at(champion, url, 5))
    assert read(url) == before


@pytest.mark.services
@postgres_only
def test_readers_always_see_a_whole_list_and_grants_stay(champion: Installation, url: str) -> None:
    publish.run(at(champion, url, 4))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("create view shown as select * from freshrank_basket"))
        connection.execute(sa.text("grant select on freshrank_basket to public"))
    grants = "select relacl::text from pg_class where relname = 'freshrank_basket'"
    [granted] = read(url, grants)
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            count = "select count(*), count(distinct interval_start) from shown"
            [row] = read(url, count)
            seen.add(tuple(row.values()))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            for _ in range(3):
                publish.run(at(champion, url, 5))
        finally:
            done.set()
        watching.result()
    assert {starts for _, starts in seen} == {1}
    assert len(seen) <= 2  # the old list's size and the new one's
    assert read(url, grants) == [granted]
    read(url, "select 1 as one from shown limit 1")


@pytest.mark.services
@postgres_only
def test_two_publishers_at_once_leave_the_newer_list(champion: Installation, url: str) -> None:
    """Each ends as if it were alone: the older one is replaced, or finds the newer lists."""
    start = threading.Barrier(2)

    def go(number: int) -> publish.Published:
        run = at(champion, url, number)
        start.wait(60)
        return publish.run(run)

    def lists() -> list[Any]:
        columns = "shopper_id, rank, item_id, score, version, interval_start"
        return read(url, f"select {columns} from freshrank_basket order by shopper_id, rank")

    for _ in range(3):
        read(url, "drop table if exists freshrank_basket")
        with ThreadPoolExecutor(2) as pool:
            # A publisher that dies raises here.
            newer, older = pool.map(go, (5, 4))
        both = lists()
        assert newer.kept is None
        assert (older.rows > 0) == (older.kept is None)
        assert newer.rows == len(both) > 0
        publish.run(at(champion, url, 5))
        assert lists() == both


@both
def test_text_ids_with_quotes_and_commas_arrive_as_they_are(url: str) -> None:
    table = PublishedTable(url, "public", "freshrank_basket", pa.string(), pa.string())
    ids = ['a,"b"', "", "ü\n;--", "\\N"]
    lists = pa.table(
        {
            "shopper_id": ids,
            "rank": pa.array([1] * 4, pa.int32()),
            "item_id": ids[::-1],
            "score": [0.1, 1e-17, -2.5, 1 / 3],
        }
    )
    stamp = Stamp(3, utc("2017-01-02"), datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    assert table.replace(lists, stamp) is None
    found = {row["shopper_id"]: (row["item_id"], row["score"]) for row in read(url)}
    assert found == dict(
        zip(ids, zip(ids[::-1], lists["score"].to_pylist(), strict=True), strict=True)
    )


@both
def test_a_table_of_another_shape_is_refused(champion: Installation, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table freshrank_basket (shopper_id bigint, note text)"))
    engine.dispose()
    with pytest.raises(TableUnusable, match="lacks the columns rank, item_id"):
        publish.run(at(champion, url, 4))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_cannot_be_published_says_why(
    champion: Installation, url: str, tmp_path: Path
) -> None:
    with pytest.raises(NotServed, match=r"features\.serve"):
        publish.run(at(champion, url, 3))
    away = at(champion, "postgresql+psycopg://nobody@127.0.0.1:1/none", 4)
    with pytest.raises(SourceUnavailable, match="does not answer"):
        publish.run(away)
    fresh = Installation.at(tmp_path, Path(champion.settings.lake), champion.vocabulary)
    nobody = publish.run(at(fresh, url, 4))
    assert (nobody.version, nobody.kept) == (None, "there is no champion yet")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_only_the_model_that_was_decided_on_is_published(
    champion: Installation, url: str, tmp_path: Path
) -> None:
    publish.run(at(champion, url, 4))
    before = read(url)
    lake = tmp_path / "copied"
    shutil.copytree(Path(champion.settings.lake), lake)
    run = at(champion, url, 5)
    run = replace(run, settings=run.settings.model_copy(update={"lake": str(lake)}))
    (text,) = lake.rglob("models/**/*.txt")
    for damaged in (text.read_text().replace("leaf_value=0", "leaf_value=9", 1), "tree\n", ""):
        text.write_text(damaged)
        with pytest.raises(CorruptPartition, match=r"not the one that was trained.*--repair"):
            publish.run(run)
    text.with_suffix(".json").write_text("{")
    text.write_text(next(Path(champion.settings.lake).rglob("models/**/*.txt")).read_text())
    with pytest.raises(CorruptPartition, match=r"\.json is damaged"):
        publish.run(run)
    text.unlink()
    with pytest.raises(CorruptPartition, match="is gone"):
        publish.run(run)
    assert read(url) == before


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_champion_whose_features_are_switched_off_is_not_published_on_nulls(
    champion: Installation, url: str
) -> None:
    run = at(champion, url, 5)
    written = ["shopper_id", "item_id", *FEATURES[:-1]]
    run.ledger.record(
        Manifest("serve", "basket", run.interval, {"rows": 1}, "", details={"columns": written})
    )
    with pytest.raises(FeatureMismatch, match=f"lacks: {FEATURES[-1]}; switch their families on"):
        publish.run(run)
