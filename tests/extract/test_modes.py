"""The registry: which capture mode reads which kind of database, and what a wrong URL is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.extract.modes import mode
from pipelines.extract.position import (
    CAPTURE,
    CaptureChanged,
    positions,
    require_same_capture,
)
from pipelines.shared.declaration import Shop
from pipelines.shared.errors import SettingsError
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import Manifest
from tests.extract.postgres_shop import tiny

URLS = {
    "postgresql": "postgresql+psycopg://u:secret@h/d",
    "mysql": "mysql+pymysql://u:secret@h/d",
    "mariadb": "mariadb+pymysql://u:secret@h/d",
    "sqlite": "sqlite:///d.db",
    "oracle": "oracle://u:secret@h/d",
    "": "no url",
}
SUPPORTED = {
    "trigger": {"postgresql", "mysql", "mariadb", "sqlite"},
    "wal": {"postgresql"},
    "binlog": {"mysql", "mariadb"},
}


def captured_by(capture: str) -> Shop:
    shop = tiny()
    source = shop.source.model_copy(update={"capture": capture})
    return shop.model_copy(update={"sources": {shop.source_name: source}})


@pytest.mark.parametrize("capture", SUPPORTED)
@pytest.mark.parametrize("dialect", URLS)
def test_a_capture_reads_its_databases_and_names_any_other(capture: str, dialect: str) -> None:
    if dialect in SUPPORTED[capture]:
        assert callable(mode(URLS[dialect], captured_by(capture)).source)
        return
    with pytest.raises(SettingsError, match=rf"`capture: {capture}` .*'{dialect}'") as refused:
        mode(URLS[dialect], captured_by(capture))
    way_out = str(refused.value).split(";")[1]
    for known in URLS:
        begins = URLS[known].split("//")[0] + "//"
        expected = known in SUPPORTED[capture] - {"mariadb"}
        assert (begins in way_out) == expected
    assert "secret" not in str(refused.value)


def test_a_cursor_reads_any_database_that_sqlalchemy_knows() -> None:
    modes = [mode(URLS[each], captured_by("cursor")) for each in URLS]
    assert all(each == modes[0] for each in modes)


def test_another_capture_is_refused_with_the_way_to_change() -> None:
    week = Interval.of("2017-01-02", "2017-01-09")
    manifest = Manifest("extract", "articles", week, {}, "", {"lsn": 1}, {CAPTURE: "wal"})
    require_same_capture([manifest], captured_by("wal"))
    assert positions([manifest], captured_by("wal")) == {"articles": {"lsn": 1}}
    with pytest.raises(CaptureChanged, match=r"`capture: wal` up to 2017-01-09.*`capture: cursor`"):
        require_same_capture([manifest], captured_by("cursor"))
    assert positions([manifest], captured_by("cursor")) == {}
    unnamed = replace(manifest, details={})
    with pytest.raises(CaptureChanged, match="`capture: wal`"):
        require_same_capture([unnamed], captured_by("trigger"))
