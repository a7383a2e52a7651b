"""Errors speak with one voice and show the way out."""

import sys

import pytest

from eyechart.core.errors import Incapable, NeverFired, NoEdges, UserError, need, unknown


class TestUnknown:
    def test_the_nearest_name_is_offered_and_all_are_listed(self):
        error = unknown("pooling", "clas", ["mean_patch", "cls"])
        assert isinstance(error, UserError)
        assert str(error) == "no pooling named 'clas'. Did you mean 'cls'? There are: cls, mean_patch."

    def test_nothing_near_offers_nothing(self):
        assert str(unknown("device", "toaster", ["cpu"])) == "no device named 'toaster'. There are: cpu."

    def test_nothing_known(self):
        assert str(unknown("run", "a", iter([]))) == "no run named 'a'. There are none."


class TestNeed:
    def test_a_package_that_is_there_is_imported(self):
        assert need("json", why="a test", extra="none").dumps([1]) == "[1]"

    def test_an_absent_one_says_who_needs_it_and_how_to_get_it(self):
        with pytest.raises(
            UserError, match=r"reading timm:NAME needs the package 'no_such'.*'eyechart\[timm\]'"
        ):
            need("no_such", why="reading timm:NAME", extra="timm")

    def test_an_absent_submodule_of_an_absent_package_too(self):
        with pytest.raises(UserError, match=r"no_such\.inner"):
            need("no_such.inner", why="this", extra="x")

    def test_a_package_that_is_there_and_broken_raises_its_own_error(self, tmp_path, monkeypatch):
        (tmp_path / "broken_package.py").write_text("import a_part_it_lacks\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="a_part_it_lacks"):
            need("broken_package", why="this", extra="x")
        assert "broken_package" not in sys.modules


def test_what_a_person_can_mend_is_a_user_error_and_what_is_a_bug_is_not():
    assert issubclass(Incapable, UserError)
    assert issubclass(NoEdges, UserError)
    assert not issubclass(NeverFired, UserError)
