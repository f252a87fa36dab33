"""A partition is replaced whole; a table keeps its types; damage is named."""

import datetime as dt
import resource
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.shared.errors import CorruptPartition, LakeUnavailable
from pipelines.shared.hashing import content_hash
from pipelines.shared.intervals import Interval
from pipelines.shared.lake import Lake

WEEKS = [Interval.of(f"2017-01-{day:02d}", f"2017-01-{day + 7:02d}") for day in (2, 9, 16)]
ROWS = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "text": ["a", None, ""],
        "paid": pa.array([Decimal("1.20"), None, Decimal("-0.01")], pa.decimal128(10, 2)),
        "at": pa.array(
            [dt.datetime(2017, 1, 2, 3, 4, 5, 6, dt.UTC)] * 3, pa.timestamp("us", "UTC")
        ),
    }
)


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path), "shop")


def test_replacing_a_partition_leaves_the_others(lake):
    for week in WEEKS:
        lake.replace("t", week, ROWS)
    lake.replace("t", WEEKS[1], ROWS.slice(0, 1))
    assert lake.read("t", [WEEKS[0]]).num_rows == 3
    assert lake.read("t", [WEEKS[1]]).num_rows == 1
    assert lake.intervals("t") == [week.key for week in WEEKS]


def test_only_the_partitions_asked_for_are_opened(lake, tmp_path):
    for week in WEEKS:
        lake.replace("t", week, ROWS)
    for file in tmp_path.glob(f"shop/t/interval_start={WEEKS[0].key[:10]}*/*.parquet"):
        file.unlink()
    assert lake.read("t", [WEEKS[1]]).num_rows == 3
    assert lake.read("t", between=(WEEKS[1].key, WEEKS[2].key)).num_rows == 3
    assert lake.read("t", between=(WEEKS[1].key, "2018")).num_rows == 6
    assert lake.read("t", []).num_rows == 0
    with pytest.raises(CorruptPartition):
        lake.read("t")


def test_types_and_nulls_come_back_exactly(lake):
    lake.replace("t", WEEKS[0], ROWS)
    assert lake.read("t", columns=ROWS.column_names).equals(ROWS)


def test_an_empty_partition_is_no_partition_but_a_table(lake):
    lake.replace("t", WEEKS[0], ROWS.slice(0, 0))
    assert lake.intervals("t") == []
    assert lake.read("t", columns=ROWS.column_names).schema.equals(ROWS.schema)


def test_a_table_never_written_is_a_key_error(lake):
    with pytest.raises(KeyError, match="absent"):
        lake.read("absent")


def test_a_lost_file_is_named(lake, tmp_path):
    lake.replace("t", WEEKS[0], ROWS)
    next(tmp_path.rglob("*.parquet")).unlink()
    with pytest.raises(CorruptPartition, match="shop/t"):
        lake.read("t")


def test_a_damaged_file_is_named(lake, tmp_path):
    lake.replace("t", WEEKS[0], ROWS)
    next(tmp_path.rglob("*.parquet")).write_bytes(b"no parquet at all")
    with pytest.raises(CorruptPartition, match="damaged or missing"):
        lake.read("t")


def test_storage_that_does_not_answer_is_not_damage(lake):
    lake.replace("t", WEEKS[0], ROWS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(LakeUnavailable, match="Too many open files"):
            lake.read("t", [WEEKS[0]])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert lake.read("t", [WEEKS[0]]).num_rows == 3


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Generic S3 error: Error performing GET: response error: 503 Slow Down", LakeUnavailable),
        ("AWS Error ACCESS_DENIED during GetObject operation", LakeUnavailable),
        ("operation timed out", LakeUnavailable),
        ("Invalid JSON in log record, version=3", CorruptPartition),
        ("Couldn't deserialize thrift: TProtocolException: Invalid data", CorruptPartition),
    ],
)
def test_a_store_says_in_words_whether_it_is_away(lake, monkeypatch, said, kind):
    lake.replace("t", WEEKS[0], ROWS)

    def fail(*_):
        raise OSError(said)

    monkeypatch.setattr(Lake, "dataset", fail)
    with pytest.raises(kind):
        lake.read("t")


def test_the_content_hash_sees_values_not_chunks():
    chunked = pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1)])
    assert content_hash(chunked) == content_hash(ROWS)
    assert content_hash(ROWS.slice(0, 2)) != content_hash(ROWS)
    assert content_hash(ROWS.slice(1, 1)) != content_hash(ROWS.slice(2, 1))


def test_partitions_are_read_one_by_one(lake):
    assert list(lake.partitions("t", ["id"])) == []
    for week in WEEKS:
        lake.replace("t", week, ROWS)
    read = dict(lake.partitions("t", ["id", "another"]))
    assert list(read) == [week.key for week in WEEKS]
    assert {tuple(rows.column_names) for rows in read.values()} == {("id", "interval_start")}
    assert {tuple(rows["id"].to_pylist()) for rows in read.values()} == {(1, 2, 3)}


def test_only_the_present_version_is_left_and_can_be_gone_on_from(lake, tmp_path):
    for _ in range(12):
        for week in WEEKS:
            lake.replace("t", week, ROWS)
    lake.replace("t", WEEKS[0], ROWS.filter(pc.not_equal(ROWS["id"], 3)))
    (tmp_path / "shop" / "t" / "orphan.parquet").write_bytes(b"half")
    version = lake.version("t")
    lake.keep_only_present("t")
    lake.keep_only_present("t")
    names = sorted(path.name for path in (tmp_path / "shop" / "t" / "_delta_log").iterdir())
    assert len(names) <= 4
    assert len(list((tmp_path / "shop" / "t").rglob("part-*.parquet"))) == len(WEEKS)
    assert not (tmp_path / "shop" / "t" / "orphan.parquet").exists()
    assert lake.version("t") >= version
    assert lake.read("t").num_rows == 8
    lake.replace("t", WEEKS[0], ROWS)
    assert lake.read("t").num_rows == 9
    lake.keep_only_present("missing")
