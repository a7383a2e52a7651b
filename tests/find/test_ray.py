"""The engine on a Ray cluster: the pairs of the local one, though machines die and runs are stopped on the way."""

import logging
import secrets
import shutil
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import save

from broken_images import encoded, scene
from eyechart.core.errors import UserError
from eyechart.core.files import read_table
from eyechart.core.runs import RunFolder
from eyechart.find import block_join, blocks, compiled, embed, mine_pairs, native, ray_embed, ray_join
from eyechart.find.block_join import Job, solve
from eyechart.find.config import MineConfig
from eyechart.find.ray_cluster import until_there
from eyechart.find.ray_embed import Embedder, Pass, embed_on_ray, packed
from eyechart.find.ray_join import mine_pairs_on_ray
from eyechart.find.sources import list_pictures
from eyechart.recipes.mine import mine
from find.test_join import clumps

# Ray Data warns of its own settings when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")

RULE = {"min_semantic": 0.9, "max_reference": 0.6, "min_alike": 0.9}
BLOCK = 60


def saved(folder, images=300, dim=100):
    """Tables of rows as files, and as they are."""
    tables = clumps(images, dim, 1), clumps(images, dim + 1, 2)
    for name, table in zip("ab", tables, strict=True):
        np.save(folder / f"{name}.npy", table)
    return (folder / "a.npy", folder / "b.npy"), tables


def same(found, wanted):
    """The same pairs, bit for bit and in the same order, and the same counts."""
    for one in ("pairs", "alike"):
        for name in ("i", "j", "semantic", "reference"):
            columns = [getattr(getattr(mined, one), name) for mined in (found, wanted)]
            assert columns[0].tobytes() == columns[1].tobytes()
            assert columns[0].dtype == columns[1].dtype
    assert found.alike_found == wanted.alike_found
    for name in ("images", "pairs", "semantic", "found", "kept"):
        assert getattr(found.certificate, name) == getattr(wanted.certificate, name)


@pytest.fixture
def jobs(tmp_path):
    """A function from options to a job on saved tables, its sketches and those tables."""

    def make(**options):
        files, tables = saved(tmp_path, images=130)
        scale = blocks.scale_of(tables[0])
        places = blocks.blocks_of(130, BLOCK)
        for number, rows in enumerate(places):
            blocks.write_sketch(tmp_path / f"{number}", tables[0][rows], scale, "s")
        sketches = [blocks.read_sketch(tmp_path / f"{number}", "s") for number in range(len(places))]
        given = {"per_image": None, "budget": None, "where": None, "name": "j", **RULE, **options}
        job = Job(
            semantic=files[0],
            reference=files[1],
            tiles=tmp_path / "tiles",
            images=130,
            block=BLOCK,
            step=scale.step,
            **given,
        )
        return job, sketches, tables

    return make


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("low", [0.9, 0.5, -0.2])
def test_a_tile_holds_the_pairs_of_its_two_blocks(jobs, monkeypatch, kernels, low):
    if not kernels:
        monkeypatch.setattr(compiled, "installed", lambda: None)
    job, sketches, tables = jobs(min_semantic=low)
    wanted = mine_pairs(*tables, **RULE | {"min_semantic": low})
    found = []
    for tile in blocks.pairs_of_blocks(3):
        solve(job, tile, sketches[tile[0]], sketches[tile[1]])
        pairs, _ = block_join.read_pairs(job, tile)
        assert {(i // BLOCK, j // BLOCK) for i, j in zip(pairs.i, pairs.j, strict=True)} <= {tile}
        found += zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)
    assert len(found) == len(set(found))
    assert set(found) == set(zip(wanted.pairs.i.tolist(), wanted.pairs.j.tolist(), strict=True))


def test_a_sketch_that_does_not_fit_the_scale_widens_its_own_bound_only(jobs):
    job, sketches, _ = jobs()
    rows = -clumps(130, 100, 1)[:BLOCK]  # as far from the sample as can be
    scale = blocks.scale_of(clumps(130, 100, 1))
    narrow = blocks.Scale(axes=scale.axes, step=scale.step / 4)
    for number, one in enumerate((scale, narrow)):
        blocks.write_sketch(job.tiles / f"{number}", rows, one, "s")
    fitting, clipped = (blocks.read_sketch(job.tiles / f"{number}", "s") for number in range(2))
    assert clipped.error > fitting.error > sketches[0].error / 2
    numbers, _ = native.coordinates_of(rows, narrow.axes, narrow.columns)
    away = np.linalg.norm(numbers - narrow.step * clipped.codes[:, : narrow.columns].astype(float), axis=1)
    assert away.max() <= clipped.error


def test_the_axes_of_an_older_version_are_made_again(tmp_path):
    rows, path = clumps(130, 100, 1), tmp_path / "axes"
    made = blocks.kept_scale(path, rows, "s")
    kept = blocks.kept_scale(path, rows[:0], "s")
    assert (kept.name, kept.axes.rests.tolist()) == (made.name, made.axes.rests.tolist())
    older = {"mean": made.axes.mean, "axes": made.axes.axes}
    path.write_bytes(save(older, metadata={"name": "s", "step": "1.0"}))
    assert blocks.kept_scale(path, rows, "s").name == made.name


def test_a_sketch_is_written_by_one_thread(tmp_path, monkeypatch):
    files, _ = saved(tmp_path, images=70)
    with RunFolder.open(tmp_path / "run", config={}, command=[]) as run:
        plan = ray_join._plan(*files, run, BLOCK)
    had, during = torch.get_num_threads(), []
    monkeypatch.setattr(blocks, "write_sketch", lambda *given: during.append(torch.get_num_threads()))
    torch.set_num_threads(3)
    try:
        ray_join._sketch(plan, 0)
        assert (during, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(had)


def test_a_tile_of_another_job_or_one_that_is_torn_is_computed_again(jobs):
    job, sketches, _ = jobs(per_image=3)
    solve(job, (0, 1), *sketches[:2])
    path = job.path((0, 1))
    first, when = path.read_bytes(), path.stat().st_mtime_ns
    solve(job, (0, 1), *sketches[:2])
    assert path.stat().st_mtime_ns == when
    path.write_bytes(first[:100])
    assert block_join.counts(job, (0, 1)) is None
    solve(job, (0, 1), *sketches[:2])
    assert path.read_bytes() == first
    other, _, _ = jobs(per_image=1, name="other")
    assert block_join.counts(other, (0, 1)) is None


def mean_colour(images, size):
    return np.stack([np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images])


@pytest.fixture
def portion(tmp_path):
    """A pass, what an actor is given of a portion with a copy and a damaged picture, and that portion's pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "run").mkdir()
    for place in range(5):
        (folder / f"{place}.png").write_bytes(encoded(scene(seed=place), "PNG"))
    (folder / "5.png").write_bytes((folder / "3.png").read_bytes())
    (folder / "6.jpg").write_bytes(b"no picture")
    pictures = list(list_pictures(str(folder)).pictures)
    view = embed.View(name="colour", key="colour", embed=mean_colour)
    job = Pass(
        make_views=lambda: [view],
        here=tmp_path,
        run=tmp_path / "run",
        cache=tmp_path / "cache",
        batch_size=2,
        workers=0,
    )
    given = {"name": np.array(["images/000000.parquet"]), "pictures": np.array([packed(pictures)])}
    return job, given, pictures


@pytest.mark.slow
def test_actors_that_do_the_same_portion_leave_it_once(portion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job, given, pictures = portion
    first, second = Embedder(job), Embedder(job)  # neither knows what the other will write
    assert first(given)["refused"] == [""]
    table = tmp_path / "run" / "images" / "000000.parquet"
    before = table.read_bytes()
    assert first(given)["refused"] == [""]
    table.unlink()
    assert second(given)["refused"] == [""]
    assert table.read_bytes() == before
    (shard,) = (tmp_path / "cache" / "colour").iterdir()
    assert shard.name.startswith("shard-portion-000000-")
    seen = embed.all_seen(pictures, tmp_path / "run")
    rows = embed.store_of(tmp_path / "cache", "colour").rows([one.sha256 for one in seen[:6]])
    wanted = mean_colour([scene(seed=place) for place in (0, 1, 2, 3, 4, 3)], 1)
    np.testing.assert_array_equal(rows, wanted)
    assert [one.bad.reason for one in seen if one.bad] == ["not_an_image"]


@pytest.mark.slow
def test_a_portion_is_given_out_again_when_its_table_is_damaged_or_its_vectors_are_gone(
    portion, tmp_path, monkeypatch
):
    """With actors in this process."""
    job, _, pictures = portion
    given = []

    def passed(items, actor, *, fn_constructor_args):
        for item in items:
            given.append(item["name"])
            actor(*fn_constructor_args)({name: np.array([value]) for name, value in item.items()})
            yield item

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embed, "PORTION", 4)
    monkeypatch.setattr(ray_embed, "cluster", nullcontext)
    monkeypatch.setattr(ray_embed, "passed", passed)
    monkeypatch.setattr(ray_embed, "_actors", lambda *_: {})
    options = {"cache": job.cache, "batch_size": 2, "workers": 0, "progress": lambda *_: None}
    with RunFolder.open(tmp_path / "run", config={}, command=[]) as run:
        first = embed_on_ray(pictures, ["colour"], job.make_views, run=run, **options)
        (tmp_path / "run" / "images" / "000001.parquet").write_bytes(b"PAR1")
        assert embed_on_ray(pictures, ["colour"], job.make_views, run=run, **options) == first
        next((tmp_path / "cache" / "colour").glob("shard-portion-000000-*")).unlink()
        assert embed_on_ray(pictures, ["colour"], job.make_views, run=run, **options) == first
    assert [int(Path(name).stem) for name in given] == [0, 1, 1, 0, 1]


@pytest.mark.slow
def test_a_machine_that_does_not_see_the_folders_refuses(portion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job, given, _ = portion
    for field in ("here", "run"):
        (refused,) = Embedder(replace(job, **{field: tmp_path / "elsewhere"}))(given)["refused"]
        assert "elsewhere here; --engine ray needs folders that all machines share (on " in refused
    shutil.rmtree(tmp_path / "photos")
    (refused,) = Embedder(job)(given)["refused"]
    assert "none of the 7 pictures of images/000000.parquet can be found from" in refused
    assert not (tmp_path / "run" / "images").exists()


def test_work_is_begun_again_while_files_are_missing_and_not_for_ever():
    left, begun = [3, 2, 1], []

    def work(some):
        begun.append(list(some))
        left.remove(some[0])

    with pytest.raises(UserError, match="1 tiles were lost 3 times, first 9"):
        until_there("tiles", lambda: [9], lambda some: None)
    until_there("tiles", lambda: list(left), work)
    assert begun == [[3, 2, 1], [2, 1], [1]]


def test_without_ray_the_engine_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    files, _ = saved(tmp_path)
    with (
        RunFolder.open(tmp_path / "run", config={}, command=[]) as run,
        pytest.raises(UserError, match=r"--engine ray needs the package 'ray'. .*'eyechart\[ray\]'"),
    ):
        mine_pairs_on_ray(*files, run)


def test_choices_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="ray_address is 'auto', but engine is 'local'"):
        MineConfig(source="x", ray_address="auto")
    with pytest.raises(UserError, match="Ray hands out the GPUs itself"):
        MineConfig(source="x", engine="ray", device="cuda:1")
    plain, on_ray = MineConfig(source="x"), MineConfig(source="x", engine="ray", ray_address="auto")
    assert plain.slug == on_ray.slug


# From here on with Ray.

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def of_ray(folder):
    """Processes that work in Ray's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def ray_folder():
    """A folder for Ray and settings that keep it to itself; no process that works there is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
    (folder / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        yield folder
    deadline = time.monotonic() + 20
    while of_ray(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = of_ray(folder)
    shutil.rmtree(folder, ignore_errors=True)
    assert left == []


@pytest.fixture(scope="module")
def head(ray_folder):
    """A cluster of one machine to which others can be added."""
    ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'eyechart[ray]')")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"per_image": 3}, {"per_image": 2, "budget": 40}, {"budget": 40}])
def test_the_pairs_are_those_of_the_local_engine(head, tmp_path, limits):
    files, tables = saved(tmp_path)
    kinds, told = np.arange(300) % 3, []
    options = {**RULE, **limits, "where": lambda i, j: kinds[i] != kinds[j]}
    with RunFolder.open(tmp_path / "run", config={}, command=[]) as run:
        found = mine_pairs_on_ray(*files, run, block=BLOCK, progress=lambda *now: told.append(now), **options)
    wanted = mine_pairs(*tables, **options)
    assert len(wanted.pairs) > 30
    assert len(wanted.alike) > 1
    same(found, wanted)
    assert found.certificate.engine == "ray, 15 tiles"
    assert ("sketching", 5, 5) in told
    assert told[-1] == ("joining", 15, 15)


@pytest.mark.slow
def test_a_start_after_a_stop_computes_only_what_is_missing(head, tmp_path):
    files, tables = saved(tmp_path)

    def held():
        with RunFolder.open(tmp_path / "run", config={}, command=[]) as run:
            return mine_pairs_on_ray(*files, run, block=BLOCK, **RULE)

    first = held()
    every = sorted((tmp_path / "run" / "tiles").iterdir())
    assert len(every) == 15
    when = {path: path.stat().st_mtime_ns for path in every}
    for path in every[::4]:
        path.unlink()
    again = held()
    same(again, first)
    same(again, mine_pairs(*tables, **RULE))
    assert [path for path in every if path.stat().st_mtime_ns != when[path]] == every[::4]


@pytest.mark.slow
def test_rows_without_a_cosine_are_refused_by_whoever_reads_them(head, tmp_path):
    files, (semantic, _) = saved(tmp_path)
    semantic[77] *= 3
    np.save(files[0], semantic)
    with (
        RunFolder.open(tmp_path / "run", config={}, command=[]) as run,
        pytest.raises(
            UserError, match=r"rows of semantic have no cosine: 1 of 60 not of length 1 \(row 77\)"
        ),
    ):
        mine_pairs_on_ray(*files, run, block=BLOCK, **RULE)


@pytest.mark.slow
def test_a_machine_that_dies_in_the_middle_costs_a_tile(head, tmp_path):
    files, tables = saved(tmp_path)
    marker = tmp_path / "begun"
    node = head.add_node(**NODE)
    name = node.node_id

    def where(i, j):
        import time

        import ray

        if ray.get_runtime_context().get_node_id() == name and not marker.exists():
            marker.touch()
            time.sleep(600)
        return i >= 0

    killed = []

    def kill():
        deadline = time.monotonic() + 300
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        killed.append(marker.exists())
        head.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with RunFolder.open(tmp_path / "run", config={}, command=[]) as run:
        found = mine_pairs_on_ray(*files, run, block=BLOCK, where=where, **RULE)
    killer.join()
    assert killed == [True]
    same(found, mine_pairs(*tables, **RULE))


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_costs_a_tile(head, tmp_path):
    files, tables = saved(tmp_path)
    marker = tmp_path / "died"

    def where(i, j):
        import os
        import signal

        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return i >= 0

    with RunFolder.open(tmp_path / "run", config={}, command=[]) as run:
        found = mine_pairs_on_ray(*files, run, block=BLOCK, where=where, **RULE)
    assert marker.exists()
    same(found, mine_pairs(*tables, **RULE))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_mine_gives_the_files_of_a_local_one(head, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(embed, "PORTION", 8)
    photos = tmp_path / "photos"
    for place in range(30):
        below = photos / f"kind-{place % 2}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{place:02d}.png").write_bytes(encoded(scene(96, 96, seed=place), "PNG"))
    (photos / "kind-0" / "copy.jpg").write_bytes(encoded(scene(96, 96, seed=0), "JPEG", quality=90))
    (photos / "kind-1" / "cut.jpg").write_bytes(encoded(scene(96, 96, seed=1), "JPEG")[:500])
    results = {}
    for engine in ("local", "ray"):
        config = MineConfig(
            source=str(photos),
            semantic="zoo:clip-biased",
            reference="zoo:two-view",
            min_semantic="p80",
            max_reference="p60",
            min_alike=0.8,
            workers=workers,
            engine=engine,
        )
        results[engine] = mine(config, out=tmp_path / engine / "run").results
    local, on_ray = (tmp_path / engine / "run" for engine in ("local", "ray"))
    names = sorted(path.relative_to(local) for path in local.rglob("*.parquet"))
    assert len(names) == 7
    assert names == sorted(path.relative_to(on_ray) for path in on_ray.rglob("*.parquet"))
    for name in names:
        assert (local / name).read_bytes() == (on_ray / name).read_bytes(), name
    assert len(read_table(on_ray / "pairs.parquet")) > 10
    assert results["local"].pop("certificate") != results["ray"].pop("certificate")
    assert results["local"] == results["ray"]
    assert not (on_ray / "tiles").exists()
