"""A home keeps its keys, privately, and is deleted only when it is one."""

import json
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from local.errors import LocalError
from local.home import PROJECT, Home, write_private


def test_the_keys_are_made_once(tmp_path: Path) -> None:
    assert Home(tmp_path).keys() == Home(tmp_path).keys()


def test_the_keys_of_an_older_home_stay_and_get_what_came_later(tmp_path: Path) -> None:
    home = Home(tmp_path)
    stored = {name: "kept" for name in asdict(home.keys()) if name != "login_password"}
    home.keys_file.write_text(json.dumps(stored))
    keys = home.keys()
    assert asdict(keys) == {**stored, "login_password": keys.login_password}
    assert home.keys() == keys


def test_two_homes_have_different_keys(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "a").keys(), Home(tmp_path / "b").keys()
    assert first.pseudonym_key != second.pseudonym_key
    assert first.postgres_password != second.postgres_password


def test_only_the_owner_reads_the_keys(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.keys()
    assert stat.S_IMODE(home.keys_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "[]", '{"pseudonym_key": "x"}', "{"])
def test_a_spoiled_key_file_is_never_replaced_in_silence(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.keys_file.write_text(text)
    with pytest.raises(LocalError, match=r"keys\.json .* restore it"):
        home.keys()
    assert home.keys_file.read_text() == text


def test_a_draft_never_remains(tmp_path: Path) -> None:
    write_private(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_home_is_named_by_the_environment(tmp_path: Path) -> None:
    assert Home.from_environment({"FRESHRANK_HOME": str(tmp_path)}).path == tmp_path
    assert Home.from_environment({"FRESHRANK_HOME": " "}).path == PROJECT / ".freshrank"
    assert Home.from_environment({}).path == PROJECT / ".freshrank"


def test_a_folder_that_is_no_home_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LocalError, match="not a home of Freshrank"):
        Home(tmp_path).delete()
    assert (tmp_path / "thesis.txt").exists()


def test_a_home_is_closed_to_other_accounts_and_a_folder_of_others_left_alone(
    tmp_path: Path,
) -> None:
    new, old, shared = (Home(tmp_path / name) for name in ("new", "old", "shared"))
    for home in (old, shared):
        home.path.mkdir(mode=0o755)
    old.keys()
    for home in (new, old, shared):
        home.create()
    modes = [stat.S_IMODE(home.path.stat().st_mode) for home in (new, old, shared)]
    assert modes == [0o700, 0o700, 0o755]


def test_a_home_is_deleted_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.keys()
    home.delete()
    assert not home.path.exists()
    home.delete()
