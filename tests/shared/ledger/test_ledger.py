"""The ledger appends, says nothing twice, and the champion is a function of its decisions."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from pipelines.shared.errors import LedgerUnavailable
from pipelines.shared.intervals import Interval
from pipelines.shared.ledger import (
    Decision,
    Forgetting,
    Ledger,
    Manifest,
    Version,
    champion_of,
)

FIRST = datetime(2017, 1, 2, tzinfo=UTC)


def week(number):
    return Interval(FIRST + timedelta(weeks=number), FIRST + timedelta(weeks=number + 1))


def decision(number, promoted=None):
    return Decision(
        week(number), "promote" if promoted else "reject", None, promoted, ("why",), {"n": 1}
    )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url):
    return Ledger(url, "shop", "surface")


def test_a_manifest_is_read_back(ledger):
    manifest = Manifest(
        "extract", "t", week(0), {"rows": 3}, "abc", {"end": "x"}, {"lag_s": 1}, 2.0
    )
    ledger.record(manifest)
    assert ledger.manifest("extract", "t", week(0)) == manifest
    assert ledger.manifest("extract", "t", week(1)) is None
    assert ledger.manifests("validate") == []


def test_the_same_manifest_is_recorded_once_and_a_new_one_stands(ledger):
    for content in ("abc", "abc", "def"):
        ledger.record(Manifest("extract", "t", week(0), {"rows": 3}, content))
    assert [manifest.content_hash for manifest in ledger.manifests("extract")] == ["def"]


def test_shops_do_not_see_each_other(ledger, url):
    ledger.record(Manifest("extract", "t", week(0), {}, "abc"))
    assert Ledger(url, "other", "surface").manifests("extract") == []


def test_an_interval_is_decided_once(ledger):
    with ledger.lock("decide") as connection:
        ledger.decide(decision(0, 1), connection)
    with pytest.raises(IntegrityError), ledger.lock("decide") as connection:
        ledger.decide(decision(0, 2), connection)
    assert ledger.champion() == 1


def test_a_decision_that_fails_inside_the_lock_is_not_kept(ledger):
    def killed():
        with ledger.lock("decide") as connection:
            ledger.decide(decision(0, 1), connection)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        killed()
    assert ledger.decisions() == []


def test_versions_are_recorded_once(ledger):
    version = Version(1, week(0), "first", None, week(0).end, 80, "models/a.txt", "hash")
    ledger.add_version(version)
    ledger.add_version(version)
    assert ledger.versions() == [version]
    assert ledger.version(1) == version
    with pytest.raises(KeyError):
        ledger.version(2)


def test_the_lock_keeps_two_apart(url):
    order = []

    def hold(name):
        with Ledger(url, "shop", "surface").lock("decide"):
            order.append(f"{name} in")
            threading.Event().wait(0.2)
            order.append(f"{name} out")

    Ledger(url, "shop", "surface")
    threads = [threading.Thread(target=hold, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.split()[1] for entry in order] == ["in", "out", "in", "out"]


def test_an_unreachable_ledger_says_so_without_its_password():
    with pytest.raises(LedgerUnavailable) as fault:
        Ledger("postgresql+psycopg://someone:secret@127.0.0.1:1/ledger", "shop", "surface")
    assert "127.0.0.1:1" in str(fault.value)
    assert "secret" not in str(fault.value)


@given(
    promotions=st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 99)), unique_by=lambda p: p[0]
    ),
    seed=st.randoms(),
)
def test_the_champion_does_not_depend_on_the_order_of_decisions(promotions, seed):
    decisions = [decision(number, version) for number, version in promotions]
    expected = max(promotions)[1] if promotions else None
    seed.shuffle(decisions)
    assert champion_of(decisions) == expected


def test_the_champion_before_an_interval_ignores_what_came_later():
    decisions = [decision(0, 1), decision(1), decision(2, 2)]
    assert champion_of(decisions, before=week(2).start) == 1
    assert champion_of(decisions, before=week(3).start) == 2
    assert champion_of(decisions, before=week(0).start) is None


def test_forgettings_are_read_back_in_order_and_per_shop(ledger, url):
    begun = Forgetting("a" * 64, "k", "begun", "Ana", "request 7", {"models": ["m"]})
    erased = Forgetting("a" * 64, "k", "erased", "Ana", "request 7", {"rows": {"t": 3}})
    ledger.record_forgetting(begun)
    ledger.record_forgetting(erased)
    assert ledger.forgettings() == [begun, erased]
    assert ledger.forgotten() == {"a" * 64: "k"}
    other = Ledger(url, "other", "surface")
    assert (other.forgettings(), other.forgotten()) == ([], {})


def test_a_ledger_of_before_gets_the_table_of_the_forgotten(ledger, url):
    ledger.record(Manifest("extract", "t", week(0), {}, "abc"))
    with sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE freshrank_forgotten")
    opened = Ledger(url, "shop", "surface")
    assert opened.forgettings() == []
    assert [each.content_hash for each in opened.manifests("extract")] == ["abc"]


def test_an_entry_is_struck_from_every_manifest_of_an_interval(ledger, url):
    for content in ("abc", "def"):
        for number in (0, 1):
            ledger.record(
                Manifest("validate", "t", week(number), {}, content, details={"batch": 9, "x": 1})
            )
    ledger.strike("validate", "t", week(0), "batch")
    with sa.create_engine(url).begin() as connection:
        rows = connection.exec_driver_sql(
            "SELECT interval_start, details FROM freshrank_manifests ORDER BY id"
        ).all()
    kept = {(start, details) for start, details in rows}
    assert kept == {
        ("2017-01-02T00:00:00Z", '{"x": 1}'), ("2017-01-09T00:00:00Z", '{"batch": 9, "x": 1}'),
    }  # fmt: skip
