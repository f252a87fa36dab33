"""The locks hold what the .in files ask for, and nothing that says where it came from."""

from __future__ import annotations

import re

import pytest

from local.home import PROJECT

ASKED = re.compile(r"^([A-Za-z0-9_.-]+)", re.MULTILINE)


def asked_for(name: str) -> set[str]:
    return {each.lower() for each in ASKED.findall((PROJECT / name).read_text()) if each[0] != "-"}


def locked_because_of(lock: str, name: str) -> set[str]:
    """The packages whose `via` names an .in file."""
    entries = re.split(r"^(?=[a-z0-9])", (PROJECT / lock).read_text(), flags=re.MULTILINE)
    return {entry.split("==")[0].split("[")[0] for entry in entries if f"-r {name}\n" in entry}


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ("requirements.txt", "requirements.in"),
        ("requirements-scale.txt", "requirements-scale.in"),
        ("requirements-dev.txt", "requirements-dev.in"),
    ],
)
def test_a_lock_is_of_its_in_file(lock, name):
    assert locked_because_of(lock, name) == asked_for(name)


@pytest.mark.parametrize(
    "lock", ["requirements.txt", "requirements-scale.txt", "requirements-dev.txt"]
)
def test_a_lock_names_no_address(lock):
    text = (PROJECT / lock).read_text()
    assert not re.search(r"://|--index-url|--find-links", text)
