"""Every way in which some router reads a path is among its readings, and a path that all read alike has one."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.routing.readings import is_plain, readings_of

MAX_READINGS = 200
CHARACTERS = st.sampled_from([*"/aB.%;?#\\ \n2F", "%2F", "//", "/../", "é", "�", "http://x/", "/api"])


def paths_of(path: str, raw: bytes | None = None, whole: str = "", root: str = "") -> list[str]:
    """Return the paths alone."""
    return [reading.path for reading in readings_of(path, raw, whole, root)]


@pytest.mark.parametrize(
    ("path", "raw", "read_as", "name"),
    [
        ("/items/3", None, "/items/3", "exact"),
        ("//items/3", None, "/items/3", "slashes merged"),
        ("/items///3", None, "/items/3", "slashes merged"),
        ("/items/3/", None, "/items/3", "trailing slash dropped"),
        ("//items//3//", None, "/items/3", "slashes merged, trailing slash dropped"),
        ("/items/a/b", b"/items/a%2Fb", "/items/a%2Fb", "encoded slash kept"),
        ("/items/a/b/", b"/items/a%2fb/", "/items/a%2Fb", "encoded slash kept, trailing slash dropped"),
        ("/items%2F3", b"/items%252F3", "/items/3", "decoded again"),
        ("/items�/3", b"/items%FF/3", "/items/3", "undecodable bytes dropped"),
        ("/items�/3", None, "/items/3", "undecodable bytes dropped"),
        ("/x/../items/./3", None, "/items/3", "dot segments removed"),
        ("/x/..//items/3/.", None, "/items/3", "dot segments removed, slashes merged, trailing slash dropped"),
        ("http://a.example/items/3", None, "/items/3", "authority dropped"),
        ("items/3", None, "/items/3", "authority dropped"),
        ("*/items/3", None, "/items/3", "first segment dropped"),
        ("", None, "/", "exact"),
        ("/items/3;v=1", None, "/items/3", "query in the path dropped"),
        ("/items/3?x", b"/items/3%3Fx", "/items/3", "query in the path dropped"),
        ("/items/3 \n", None, "/items/3", "white space dropped"),
        ("/files/a\nb", None, "/files/ab", "white space dropped"),
        ("\\items\\3", None, "/items/3", "backslashes turned"),
    ],
)
def test_a_reading_and_its_name(path: str, raw: bytes | None, read_as: str, name: str) -> None:
    """What a router makes of a path is a reading of it, under a name that says what was done."""
    assert (name, read_as) in readings_of(path, raw)


def test_root_paths() -> None:
    """A root path may be left on the path, taken off, or put before it."""
    assert paths_of("/items/3", None, "/api/items/3", "/api") == ["/items/3", "/api/items/3"]
    assert paths_of("/api/items/3", None, "/api/items/3", "/api") == ["/api/items/3", "/api/api/items/3", "/items/3"]


@given(st.from_regex(r"(/[A-Za-z0-9_~!$&'()*+,=:@-]{1,5}){1,5}", fullmatch=True))
def test_a_plain_path_has_one_reading(path: str) -> None:
    """What is told to be plain is read alike by all; nothing else is told so that has more readings."""
    assert is_plain(path, path.encode())
    assert paths_of(path, path.encode()) == [path]


@given(st.lists(CHARACTERS, max_size=12).map("".join))
def test_no_path_is_plain_that_has_several_readings(text: str) -> None:
    """The shortcut for plain paths leaves nothing out, and no path has so many readings that they are an attack."""
    raw = quote(text, safe="/;?#\\").encode()
    found = readings_of(text, raw, f"/api{text}", "/api")
    assert len(found) <= MAX_READINGS
    assert len({reading.path for reading in found}) == len(found)
    assert found[0] == ("exact", text or "/")
    if is_plain(text, raw):
        assert len(readings_of(text, raw)) == 1
