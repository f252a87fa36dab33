"""Spark as an engine, for shops whose logs outgrow one machine; pyspark is imported on opening."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.features.engines.base import Engine, Table, without_times
from pipelines.shared.errors import SettingsError
from pipelines.shared.settings import Settings

_MIB: Final = 1 << 20
_UNITS: Final = {"MB": 10**6, "GB": 10**9}


class Spark(Engine):
    """One Spark application. Every table lies as Parquet in the spill folder, which bounds memory,
    cuts the lineage and outlives an executor.

    Args:
        settings: master, threads and memory limit; anything else comes from spark-defaults.conf.
        spill: folder that the driver and every executor see.

    Raises:
        SettingsError: there is no pyspark or no Java, or the master does not answer.
    """

    def __init__(self, settings: Settings, spill: Path) -> None:
        super().__init__(settings.threads)
        self._spill = spill
        self._session = _session(settings, spill)
        self._ibis = ibis.pyspark.connect(self._session)

    def load(self, rows: pa.Table) -> Table:
        """Through a Parquet file."""
        from pyspark.sql.pandas.types import from_arrow_schema

        name, plain = self._name(), without_times(rows)
        folder = self._spill / name
        folder.mkdir()
        pq.write_table(plain, folder / "rows.parquet", compression="zstd")
        return self._readable(name, from_arrow_schema(plain.schema))

    def materialize(self, expression: Table) -> Table:
        """As Parquet files, a part a task."""
        name = self._name()
        frame = self._frame(expression)
        frame.write.parquet(str(self._spill / name))
        return self._readable(name, frame.schema)

    def close(self) -> None:
        """End the application."""
        self._ibis.disconnect()

    def _collect(self, expression: Table) -> pa.Table:
        rows: pa.Table = self._frame(expression).toArrow()
        return rows

    def _frame(self, expression: Table) -> Any:
        return self._session.sql(self._ibis.compile(expression))

    def _readable(self, name: str, schema: Any) -> Table:
        reader = self._session.read.schema(schema)  # given, so that it reads no file first
        reader.parquet(str(self._spill / name)).createOrReplaceTempView(name)
        return self._ibis.table(name)

    def _drop(self, name: str) -> None:
        self._session.catalog.dropTempView(name)
        shutil.rmtree(self._spill / name)


def _session(settings: Settings, spill: Path) -> Any:
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise SettingsError(
            "FRESHRANK_ENGINE is spark, and the package pyspark is not installed: "
            "`pip install -r requirements-scale.txt`, or set FRESHRANK_ENGINE=duckdb"
        ) from None
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=f"{home}/bin" if home else None) is None:
        raise SettingsError(
            f"FRESHRANK_ENGINE is spark, and there is no java in {home or 'PATH'}: install Java 17 "
            "or newer (`apt-get install default-jre-headless`), or set FRESHRANK_ENGINE=duckdb"
        )
    builder = SparkSession.builder.master(settings.spark_master)
    for name, value in _configuration(settings, spill).items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except (PySparkException, OSError) as error:
        raise SettingsError(
            f"Spark does not start on FRESHRANK_SPARK_MASTER={settings.spark_master}: {error}"
        ) from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _configuration(settings: Settings, spill: Path) -> dict[str, str]:
    memory = mebibytes(settings.memory_limit)
    common = {
        "spark.app.name": f"freshrank features {settings.shop}",
        "spark.driver.memory": f"{memory}m",
        "spark.driver.maxResultSize": f"{memory}m",
        "spark.executor.memory": f"{memory}m",
        "spark.sql.warehouse.dir": str(spill / "warehouse"),
        "spark.ui.showConsoleProgress": "false",
    }
    if not settings.spark_master.startswith("local"):
        return common
    return common | {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": str(2 * settings.threads),
        "spark.ui.enabled": "false",
    }


def mebibytes(limit: str) -> int:
    """Spark's unit of memory from DuckDB's: `4GB` are 3814 MiB."""
    return int(limit[:-2]) * _UNITS[limit[-2:]] // _MIB
