"""Configs from mappings: left-over options, wrong types and bad values are told apart, and all is stored as given."""

import dataclasses
import json
import math
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.config import build, merge, plain, read_yaml, to_dict
from eyechart.core.errors import UserError


class Metric(Enum):
    COSINE = "cosine"
    DOT = "dot"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    like: float = 0.95
    unlike: float = 0.6

    def __post_init__(self) -> None:
        if not self.unlike < self.like:
            raise ValueError(f"unlike must be below like, got {self.unlike} and {self.like}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    model: str
    seed: int = 0
    share: float = 0.5
    quiet: bool = False
    pooling: Literal["cls", "mean_patch"] = "cls"
    batch_size: int | Literal["auto"] = "auto"
    out: Path = Path("runs")
    layers: tuple[int, ...] = ()
    size: tuple[int, int] = (224, 224)
    revision: str | None = None
    metric: Metric = Metric.COSINE
    limits: Limits = Limits()
    maybe: Limits | None = None
    several: tuple[Limits, ...] = ()
    named: dict[str, Limits] = dataclasses.field(default_factory=dict)


class TestBuild:
    def test_what_is_not_said_takes_its_default(self):
        assert build(Config, {"model": "m"}) == Config(model="m")

    def test_every_kind_of_option(self):
        built = build(
            Config,
            {
                "model": "m", "seed": 3, "share": 1, "quiet": True, "pooling": "mean_patch", "batch_size": 8,
                "out": "a/b", "layers": [1, 2], "size": [336, 224], "revision": "main", "metric": "dot",
                "limits": {"like": 0.9}, "maybe": {"unlike": 0.1}, "several": [{"like": 1}], "named": {"x": {}},
            },
        )  # fmt: skip
        assert built == Config(
            model="m", seed=3, share=1.0, quiet=True, pooling="mean_patch", batch_size=8, out=Path("a/b"),
            layers=(1, 2), size=(336, 224), revision="main", metric=Metric.DOT, limits=Limits(like=0.9),
            maybe=Limits(unlike=0.1), several=(Limits(like=1.0),), named={"x": Limits()},
        )  # fmt: skip
        assert isinstance(built.share, float)
        assert isinstance(built.limits, Limits)

    def test_python_values_do_as_well_as_those_of_a_file(self):
        given = {
            "model": "m",
            "out": Path("a"),
            "layers": (1,),
            "metric": Metric.DOT,
            "limits": Limits(like=0.8),
        }
        assert build(Config, given) == Config(
            model="m", out=Path("a"), layers=(1,), metric=Metric.DOT, limits=Limits(like=0.8)
        )

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (
                {"modl": "m"},
                r"no Config option named 'modl'\. Did you mean 'model'\? There are: batch_size, layers, ",
            ),
            ({"limits": {"lik": 1}}, r"named 'limits\.lik'\. Did you mean 'limits\.like'\?"),
            ({"maybe": {"lik": 1}}, r"named 'maybe\.lik'"),
            ({"several": [{}, {"lik": 1}]}, r"named 'several\.1\.lik'"),
            ({"named": {"x": {"lik": 1}}}, r"named 'named\.x\.lik'"),
            ({}, r"Config option 'model' is missing"),
            ({"seed": "3"}, r"'seed' is '3' \(str\), expected integer"),
            ({"seed": True}, r"'seed' is True \(bool\), expected integer"),
            ({"seed": 1.5}, r"'seed' is 1\.5 \(float\), expected integer"),
            ({"share": "half"}, r"'share' is 'half' \(str\), expected number"),
            ({"quiet": 1}, r"'quiet' is 1 \(int\), expected boolean"),
            ({"quiet": "yes"}, r"'quiet' is 'yes' \(str\), expected boolean"),
            ({"revision": 7}, r"'revision' is 7 \(int\), expected text"),
            ({"out": 7}, r"'out' is 7 \(int\), expected text"),
            ({"pooling": "clas"}, r"'clas' \(str\), expected 'cls' or 'mean_patch'\. Did you mean 'cls'\?"),
            ({"metric": "cosin"}, r"expected 'cosine' or 'dot'\. Did you mean 'cosine'\?"),
            ({"batch_size": "fast"}, r"'batch_size' is 'fast' \(str\), expected integer or 'auto'$"),
            ({"layers": "12"}, r"'layers' is '12' \(str\), expected list"),
            ({"layers": [1, "a"]}, r"'layers\.1' is 'a' \(str\), expected integer"),
            ({"size": [1]}, r"'size\.1' is missing"),
            ({"limits": 3}, r"'limits' is 3 \(int\), expected mapping"),
            ({"limits": {"like": "x"}}, r"'limits\.like' is 'x'"),
            ({"limits": {"like": 0.1}}, r"'limits': unlike must be below like, got 0\.6 and 0\.1"),
            ({"model": "a\ud800"}, r"text that is not Unicode: .*ud800"),
        ],
    )
    def test_what_is_wrong_names_key_given_and_expected(self, options, says):
        options = options if "modl" in options or not options else {"model": "m"} | options
        with pytest.raises(UserError, match=says):
            build(Config, options)

    def test_all_that_is_wrong_is_said_at_once_and_under_the_callers_name(self):
        with pytest.raises(
            UserError, match=r"^exam option 'seed' is 'x'.*\nexam option 'share' is 'y'"
        ) as caught:
            build(Config, {"model": "m", "seed": "x", "share": "y"}, name="exam")
        assert str(caught.value).count("\n") == 1

    def test_a_value_that_a_config_itself_refuses(self):
        with pytest.raises(UserError, match=r"^Limits: unlike must be below like, got 0\.9 and 0\.1$"):
            build(Limits, {"like": 0.1, "unlike": 0.9})

    def test_only_frozen_keyword_only_dataclasses_are_configs(self):
        @dataclasses.dataclass
        class Loose:
            a: int = 0

        for wrong in (Loose, dict):
            with pytest.raises(TypeError, match="is not a frozen, keyword-only dataclass"):
                build(wrong, {})

    def test_values_no_file_could_hold_are_bugs(self):
        with pytest.raises(TypeError, match=r"\{1\} \(set\) has no place in a config"):
            build(Config, {"model": "m", "layers": {1}})


numbers = st.floats(allow_nan=False)
limits = st.builds(Limits, like=st.floats(0.5, 1), unlike=st.floats(-1, 0.4))
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
configs = st.builds(
    Config,
    model=text,
    seed=st.integers(),
    share=numbers,
    quiet=st.booleans(),
    pooling=st.sampled_from(["cls", "mean_patch"]),
    batch_size=st.integers() | st.just("auto"),
    out=st.sampled_from([Path("a"), Path("/b/c"), Path("ü x")]),
    layers=st.lists(st.integers(), max_size=3).map(tuple),
    revision=st.none() | text,
    metric=st.sampled_from(Metric),
    limits=limits,
    maybe=st.none() | limits,
    several=st.lists(limits, max_size=2).map(tuple),
    named=st.dictionaries(text, limits, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(configs)
def test_a_config_comes_back_equal_through_a_mapping_json_and_yaml(config):
    stored = to_dict(config)
    assert build(Config, stored) == config
    assert to_dict(build(Config, stored)) == stored
    assert build(Config, json.loads(json.dumps(stored))) == config
    assert build(Config, yaml.safe_load(yaml.safe_dump(stored))) == config


class TestToDict:
    def test_it_holds_only_what_files_can(self):
        assert to_dict(Config(model="m", layers=(1, 2), maybe=Limits(), metric=Metric.DOT)) == {
            "model": "m", "seed": 0, "share": 0.5, "quiet": False, "pooling": "cls", "batch_size": "auto", "out": "runs",
            "layers": [1, 2], "size": [224, 224], "revision": None, "metric": "dot", "limits": {"like": 0.95, "unlike": 0.6},
            "maybe": {"like": 0.95, "unlike": 0.6}, "several": [], "named": {},
        }  # fmt: skip

    @pytest.mark.parametrize("wrong", [{"a": 1}, Config, None])
    def test_only_config_objects(self, wrong):
        with pytest.raises(TypeError, match="is not a config object"):
            to_dict(wrong)

    def test_infinities_stay_numbers(self):
        assert math.isinf(build(Limits, {"like": math.inf}).like)
        assert plain((1, Path("a"), {"b": Metric.DOT})) == [1, "a", {"b": "dot"}]


class TestMerge:
    def test_later_layers_win_key_by_key(self):
        merged = merge({"a": 1, "in": {"x": 1, "y": 1}}, {"in": {"y": 2}}, {"a": 3, "b": {"z": 1}})
        assert merged == {"a": 3, "in": {"x": 1, "y": 2}, "b": {"z": 1}}

    def test_a_mapping_and_a_value_replace_each_other(self):
        assert merge({"a": {"x": 1}}, {"a": 2}) == {"a": 2}
        assert merge({"a": 2}, {"a": {"x": 1}}) == {"a": {"x": 1}}
        assert merge() == {}

    def test_the_layers_are_left_alone(self):
        first = {"in": {"x": 1}}
        merge(first, {"in": {"x": 2}})
        assert first == {"in": {"x": 1}}


class TestReadYaml:
    def read(self, folder: Path, text: str) -> dict[str, object]:
        path = folder / "recipe.yaml"
        path.write_text(text, "utf8")
        return read_yaml(path)

    def test_options(self, tmp_path):
        assert self.read(tmp_path, "a: 1\nb: {c: [x, 2.5]}\n") == {"a": 1, "b": {"c": ["x", 2.5]}}
        assert self.read(tmp_path, "") == {}

    def test_numbers_people_write(self, tmp_path):
        read = self.read(tmp_path, "a: 1e-4\nb: 2E6\nc: 1.5e3\nd: -1e3\ne: '1e-4'\nf: e3\ng: 12\nh: 1e-4x\n")
        assert read == {
            "a": 1e-4,
            "b": 2e6,
            "c": 1500.0,
            "d": -1000.0,
            "e": "1e-4",
            "f": "e3",
            "g": 12,
            "h": "1e-4x",
        }

    def test_anchors_work(self, tmp_path):
        read = self.read(tmp_path, "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\n")
        assert read["other"] == {"x": 1, "y": 3}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("a: 1\na: 2\n", r"recipe\.yaml is not YAML: .*'a' stands there twice"),
            ("in: {x: 1, x: 1}\n", "'x' stands there twice"),
            ("a: [1\n", "is not YAML"),
            ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
            ("a: \0\n", "is not YAML"),
            ("- 1\n- 2\n", r"must hold options as 'name: value', got \[1, 2\]"),
            ("just words\n", "got 'just words'"),
            ("1: a\n", r"got \{1: 'a'\}"),
            ("? [a]\n: 1\n", "is not YAML"),
        ],
    )
    def test_what_is_no_set_of_options(self, text, says, tmp_path):
        with pytest.raises(UserError, match=says):
            self.read(tmp_path, text)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(UserError, match=r"no\.yaml cannot be read: No such file or directory"):
            read_yaml(tmp_path / "no.yaml")

    def test_bytes_that_are_no_text(self, tmp_path):
        (tmp_path / "recipe.yaml").write_bytes(b"a: \xff\xfe\n")
        with pytest.raises(UserError, match="is not YAML"):
            read_yaml(tmp_path / "recipe.yaml")

    def test_other_users_of_yaml_are_not_touched(self):
        assert yaml.safe_load("a: 1e-4") == {"a": "1e-4"}
