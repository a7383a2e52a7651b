"""Files are whole or not there; JSONL heals its torn end and refuses what it cannot read."""

import json
import logging
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core import files
from eyechart.core.errors import UserError
from eyechart.core.files import (
    JsonLines,
    read_table,
    remove_unfinished,
    reserve,
    write_bytes,
    write_json,
    write_table,
)

SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), ("score", pa.float64()), ("ok", pa.bool_())])
ROWS = [{"id": "a", "score": 0.5, "ok": True}, {"id": "b", "score": None, "ok": None}]


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class TestAtomicWrites:
    def test_a_new_file_in_new_folders_and_an_old_one_replaced(self, tmp_path):
        path = tmp_path / "a" / "b" / "file"
        write_bytes(path, b"one")
        write_bytes(path, b"two")
        assert path.read_bytes() == b"two"
        assert [one.name for one in path.parent.iterdir()] == ["file"]

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(self, step, tmp_path, monkeypatch):
        path = tmp_path / "file"
        write_bytes(path, b"old")

        def fail(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", fail) if step == "fsync" else monkeypatch.setattr(
            files.Path, "replace", fail
        )
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
            write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
        assert [one.name for one in tmp_path.iterdir()] == ["file"]

    def test_an_error_without_a_number_keeps_its_words(self, tmp_path):
        with pytest.raises(OSError, match=r"^the table is odd$"), files._replacing(tmp_path / "file"):
            raise OSError("the table is odd")
        assert not list(tmp_path.iterdir())

    def test_what_is_written_is_on_the_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        steps = []
        sync, replace = os.fsync, files.Path.replace
        monkeypatch.setattr(files.os, "fsync", lambda handle: (steps.append("sync"), sync(handle)))
        monkeypatch.setattr(files.Path, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
        write_bytes(tmp_path / "file", b"x")
        assert steps == ["sync", "replace", "sync"]  # the content, the name, the folder

    def test_left_overs_of_a_killed_process_are_removed_and_nothing_else(self, tmp_path):
        (tmp_path / "thumbs").mkdir()
        for name in (".a.json.writing", "thumbs/.b.jpg.writing", "keep.writing", ".keep"):
            (tmp_path / name).write_bytes(b"x")
        remove_unfinished(tmp_path)
        assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
            ".keep",
            "keep.writing",
        ]


class TestReserve:
    def test_all_of_a_file_is_set_aside(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(files.os, "posix_fallocate", lambda handle, *place: asked.append(place))
        path = tmp_path / "table"
        with path.open("wb") as handle:
            handle.truncate(5000)
        reserve(path)
        assert asked == [(0, 5000)]
        assert path.stat().st_size == 5000

    def test_a_file_that_has_no_room_is_removed(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "posix_fallocate", full)
        (tmp_path / "table").write_bytes(b"x")
        with pytest.raises(OSError, match=r"No space left on device: '.*table'"):
            reserve(tmp_path / "table")
        assert list(tmp_path.iterdir()) == []

    def test_a_system_without_the_call_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.delattr(files.os, "posix_fallocate", raising=False)
        (tmp_path / "table").write_bytes(b"x")
        reserve(tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == b"x"


class TestJson:
    def test_people_can_read_it(self, tmp_path):
        write_json(tmp_path / "a.json", {"b": "naïve ☃", "a": [1, 2.5, None]})
        assert (tmp_path / "a.json").read_text("utf8").startswith('{\n  "b": "naïve ☃",\n')
        assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")

    def test_half_a_surrogate_pair_is_escaped(self, tmp_path):
        write_json(tmp_path / "a.json", {"path": "a\udcff"})
        assert json.loads((tmp_path / "a.json").read_text("utf8")) == {"path": "a\udcff"}

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_what_json_has_not_is_refused(self, value, tmp_path):
        with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
            write_json(tmp_path / "a.json", {"rate": value})
        with pytest.raises(TypeError, match="set is not JSON serializable"):
            write_json(tmp_path / "a.json", {"a": {1}})
        assert not (tmp_path / "a.json").exists()


class TestTables:
    def test_rows_come_back_with_their_types(self, tmp_path):
        write_table(tmp_path / "t.parquet", iter(ROWS), SCHEMA)
        assert read_table(tmp_path / "t.parquet") == ROWS
        assert pq.read_schema(tmp_path / "t.parquet").equals(SCHEMA)

    def test_an_empty_table_keeps_its_schema(self, tmp_path):
        write_table(tmp_path / "t.parquet", [], SCHEMA)
        assert read_table(tmp_path / "t.parquet") == []
        assert pq.read_schema(tmp_path / "t.parquet").equals(SCHEMA)

    def test_same_rows_same_bytes_whatever_the_order_of_keys(self, tmp_path):
        many = [{"id": str(n), "score": n / 7, "ok": n % 2 == 0} for n in range(5000)]
        write_table(tmp_path / "a", many, SCHEMA)
        write_table(tmp_path / "b", [dict(reversed(row.items())) for row in many], SCHEMA)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            (
                {"id": "a", "score": 1.0},
                r"t\.parquet, row 1: columns \['id', 'score'\]; need \['id', 'ok', 'score'\]",
            ),
            ({"id": "a", "score": 1.0, "ok": True, "more": 1}, r"columns \['id', 'more', "),
            ({"id": None, "score": 1.0, "ok": True}, r"row 1: no value for id"),
        ],
    )
    def test_rows_that_do_not_fit_are_refused(self, row, says, tmp_path):
        with pytest.raises(ValueError, match=says):
            write_table(tmp_path / "t.parquet", [ROWS[0], row], SCHEMA)
        assert list(tmp_path.iterdir()) == []

    def test_values_of_another_type_are_refused(self, tmp_path):
        with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError), match="half"):
            write_table(tmp_path / "t.parquet", [{"id": "a", "score": "half", "ok": True}], SCHEMA)

    def test_a_table_that_is_none(self, tmp_path):
        with pytest.raises(UserError, match=r"there is no table .*no\.parquet"):
            read_table(tmp_path / "no.parquet")
        for content in (b"", b"PAR1 but no more"):
            (tmp_path / "t.parquet").write_bytes(content)
            with pytest.raises(UserError, match=r"t\.parquet cannot be read as a Parquet table"):
                read_table(tmp_path / "t.parquet")


class TestJsonLines:
    def test_records_are_kept_in_order_and_known_by_key(self, tmp_path):
        log = JsonLines(tmp_path / "s.jsonl", key="doc_id")
        for name in ("b", "a", "c"):
            log.append({"doc_id": name, "reply": f"line\n{name} ☃"})
        assert log.done == ("b", "a", "c")
        assert "a" in log
        assert "d" not in log
        assert len(log) == 3
        assert [record["reply"] for record in log] == ["line\nb ☃", "line\na ☃", "line\nc ☃"]
        log.close()
        again = JsonLines(tmp_path / "s.jsonl", key="doc_id")
        assert (again.done, again.healed) == (("b", "a", "c"), 0)
        again.close()

    def test_a_key_of_several_fields(self, tmp_path):
        log = JsonLines(tmp_path / "s.jsonl", key=("pair", "layer"))
        log.append({"pair": "p", "layer": 0})
        log.append({"pair": "p", "layer": 1})
        assert log.done == (("p", 0), ("p", 1))
        with pytest.raises(
            ValueError, match=r"s\.jsonl already has a record with \('pair', 'layer'\) = \('p', 1\)"
        ):
            log.append({"layer": 1, "pair": "p"})
        log.close()

    def test_each_record_is_on_the_disk_when_append_returns(self, tmp_path, monkeypatch):
        log = JsonLines(tmp_path / "s.jsonl", key="id")
        synced, sync = [], os.fsync
        monkeypatch.setattr(
            files.os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_size), sync(handle))
        )
        log.append({"id": 1})
        log.append({"id": 2})
        assert synced == [10, 20]
        log.close()

    def test_bad_records_are_refused_and_leave_no_trace(self, tmp_path):
        log = JsonLines(tmp_path / "s.jsonl", key="id")
        log.append({"id": 1})
        for record, says in [
            ({"id": 1}, r"s\.jsonl already has a record with id = 1"),
            ({"other": 2}, r"s\.jsonl: a record without id: \{'other': 2\}"),
            ({"id": None}, "a record without id"),
            ({"id": 2, "score": float("nan")}, "not JSON compliant"),
        ]:
            with pytest.raises(ValueError, match=says):
                log.append(record)
        log.append({"id": 2})
        log.close()
        assert lines_of(tmp_path / "s.jsonl") == [{"id": 1}, {"id": 2}]

    def test_a_full_disk_leaves_the_file_as_it_was(self, tmp_path, monkeypatch):
        log = JsonLines(tmp_path / "s.jsonl", key="id")
        log.append({"id": 1})

        class Full:
            def __init__(self, handle):
                self.handle = handle

            def write(self, data):
                return self.handle.write(data[:4])

        whole, log._handle = log._handle, Full(log._handle)
        with pytest.raises(OSError, match=r"s\.jsonl: the disk took 4 of 10 bytes"):
            log.append({"id": 2})
        log._handle = whole
        assert "2" not in (tmp_path / "s.jsonl").read_text()
        assert 2 not in log
        log.append({"id": 3})
        log.close()
        assert lines_of(tmp_path / "s.jsonl") == [{"id": 1}, {"id": 3}]

    def test_cut_at_any_byte_it_heals_and_ends_with_the_same_bytes(self, tmp_path, caplog):
        caplog.set_level(logging.ERROR)
        records = [{"doc_id": f"item {n}", "reply": "ü\n" * n, "score": n / 3} for n in range(4)]
        path = tmp_path / "s.jsonl"
        log = JsonLines(path, key="doc_id")
        for record in records:
            log.append(record)
        log.close()
        whole = path.read_bytes()
        for end in range(len(whole) + 1):
            path.write_bytes(whole[:end])
            log = JsonLines(path, key="doc_id")
            assert len(log.done) == whole[:end].count(b"\n")
            assert log.healed == end - (whole[:end].rfind(b"\n") + 1)
            for record in records:
                if record["doc_id"] not in log:
                    log.append(record)
            log.close()
            assert path.read_bytes() == whole

    @pytest.mark.parametrize(
        "tail", [b"\0" * 50, b"\0" * 50 + b"\n", b'{"id": 9, "a', b'{"id": 9}', b"\xff\xfe\n"]
    )
    def test_other_torn_ends(self, tail, tmp_path, caplog):
        path = tmp_path / "s.jsonl"
        path.write_bytes(b'{"id": 1}\n' + tail)
        log = JsonLines(path, key="id")
        assert (log.done, log.healed) == ((1,), len(tail))
        assert f"cut off a last line of {len(tail)} bytes" in caplog.text
        log.close()
        assert path.read_bytes() == b'{"id": 1}\n'

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b'{"id": 1}\n{"id": 2\n{"id": 3}\n', r"s\.jsonl, line 2 is not a JSON record: b'\{\"id\": 2'.*--fresh"),
            (b'\n{"id": 1}\n', r"line 1 is not a JSON record: b''"),
            (b'{"id": 1}\n[2]\n{"id": 3}\n', r"line 2 is not a JSON record: b'\[2\]'"),
            (b'{"id": 1}\n{"name": 2}\n{"id": 3}\n', r"line 2: s\.jsonl: a record without id: \{'name': 2\}"),
            (b'{"id": 1}\n{"id": 2}\n{"id": 1}\n', r"line 3 repeats id = 1"),
        ],
    )  # fmt: skip
    def test_damage_before_the_end_is_refused_by_file_and_line(self, content, says, tmp_path):
        path = tmp_path / "s.jsonl"
        path.write_bytes(content)
        with pytest.raises(UserError, match=says):
            JsonLines(path, key="id")
        assert path.read_bytes() == content

    def test_finalise_puts_records_in_order(self, tmp_path):
        log = JsonLines(tmp_path / "s.jsonl", key="id")
        for n in (3, 1, 2):
            log.append({"id": n, "text": "\r\u2028"})
        log.finalise([1, 2, 3])
        assert [record["id"] for record in lines_of(tmp_path / "s.jsonl")] == [1, 2, 3]
        assert log.done == (1, 2, 3)
        log.append({"id": 4})
        assert [record["id"] for record in log] == [1, 2, 3, 4]
        log.finalise([4, 3, 2, 1])
        assert [record["id"] for record in log] == [4, 3, 2, 1]
        log.close()

    def test_finalise_leaves_an_ordered_file_alone(self, tmp_path):
        log = JsonLines(tmp_path / "s.jsonl", key="id")
        log.append({"id": 1})
        before = (tmp_path / "s.jsonl").stat().st_ino
        log.finalise([1])
        assert (tmp_path / "s.jsonl").stat().st_ino == before
        log.close()

    @pytest.mark.parametrize(
        ("order", "says"), [([1], "twice: 2"), ([2, 1, 3], "twice: 3"), ([2, 1, 1], "a repeated key")]
    )
    def test_finalise_wants_each_record_once(self, order, says, tmp_path):
        log = JsonLines(tmp_path / "s.jsonl", key="id")
        log.append({"id": 1})
        log.append({"id": 2})
        with pytest.raises(
            ValueError, match=rf"s\.jsonl has 2 records and the order names {len(order)}; .*{says}"
        ):
            log.finalise(order)
        log.close()

    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=5,
    )

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(values, max_size=4).flatmap(lambda v: st.tuples(st.just(v), st.permutations(range(len(v)))))
    )
    def test_whatever_json_holds_comes_back(self, tmp_path_factory, drawn):
        values, order = drawn
        path = tmp_path_factory.mktemp("any") / "s.jsonl"
        log = JsonLines(path, key="id")
        for number, value in enumerate(values):
            log.append({"id": number, "value": value})
        log.finalise(order)
        log.close()
        again = JsonLines(path, key="id")
        assert [(record["id"], record["value"]) for record in again] == [(n, values[n]) for n in order]
        again.close()
