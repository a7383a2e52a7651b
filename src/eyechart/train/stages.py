"""Train a LLaVA-like VLM on one's own conversations in two stages: adapters alone, then adapters and language model.

The way of LLaVA (arXiv 2304.08485, 2310.03744) for any model that `feeding_of` can take apart. The encoders stay frozen
throughout, which is checked bit for bit; so what they see of each image is computed once. Every stage runs by `fit`: the
same command again goes on where a killed one stopped and ends with the weights of an unbroken run.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env  # type: ignore[import-untyped]
from peft import PeftModel
from safetensors.torch import load_file

from eyechart.core.config import to_dict
from eyechart.core.devices import pick_dtype
from eyechart.core.errors import UserError
from eyechart.core.files import write_bytes, write_json
from eyechart.core.lock import FolderLock
from eyechart.models.quiet import quiet
from eyechart.models.vlms import load_vlm
from eyechart.models.vlms.feeding import Feeding, feeding_of
from eyechart.train.adapters import ADAPTERS, load_adapters, save_adapters
from eyechart.train.collate import Tokeniser
from eyechart.train.curves import draw_curves
from eyechart.train.dataset import Batches, Dataset, make_ready
from eyechart.train.feature_store import FeatureStore, Read, direct, identity_of
from eyechart.train.loop import WEIGHTS, Report, fit, together
from eyechart.train.lora import put_lora, save_lora
from eyechart.train.plan import DataPlan, StagePlan, TrainPlan
from eyechart.train.samples import read_samples
from eyechart.train.taught import Auxiliary, TaughtParts, loss_of
from eyechart.train.weights import put_named, values_sha256

logger = logging.getLogger(__name__)

Resolve = Callable[[DataPlan], tuple[Path, Path | None]]
"""Where a set lies: its file, and the folder of its images or None."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Loaded:
    """A model taken apart for one stage."""

    model: Any
    processor: Any
    feeding: Feeding
    wrapped: PeftModel | None
    parts: TaughtParts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One stage of a plan, and where it is run."""

    plan: TrainPlan
    name: str
    adapters: Path | None
    """Those of the stage before."""

    auxiliaries: Mapping[str, Auxiliary]

    @property
    def own(self) -> StagePlan:
        return self.plan.stages[self.name]

    @property
    def folder(self) -> Path:
        return Path(self.plan.output_dir) / self.name

    @property
    def last(self) -> bool:
        return self.name == list(self.plan.stages)[-1]


def train_stages(
    plan: TrainPlan,
    resolve: Resolve,
    *,
    auxiliaries: Mapping[str, Auxiliary] | None = None,
    report: Report | None = None,
) -> Path:
    """Train as a plan says, from where an earlier run of the same plan stopped.

    `output_dir` gets a folder for each stage (checkpoint, `loss.jsonl`, `data.json`, `quarantined.jsonl`,
    `adapters.safetensors`), `loss.png`, and `model`, a checkpoint as any other.

    Args:
        resolve: where each set lies.
        auxiliaries: further losses by name, in every stage.
        report: told what is read, encoded and trained.

    Returns:
        The folder of the trained model.

    Raises:
        UserError: model, data or options do not fit, or the folder holds another run.
        RuntimeError: what was frozen has changed.
    """
    out, before = Path(plan.output_dir), None
    lock = FolderLock(out) if together().is_main_process else None
    try:
        for name in plan.stages:
            stage = _Stage(plan=plan, name=name, adapters=before, auxiliaries=auxiliaries or {})
            before = _run(stage, resolve, report)
        if together().is_main_process:
            draw_curves({name: out / name / "loss.jsonl" for name in plan.stages}, out / "loss.png")
            write_json(out / "training.json", {"plan": to_dict(plan)})
        together().wait_for_everyone()
    finally:
        if lock is not None:
            lock.release()
    return out / "model"


def _run(stage: _Stage, resolve: Resolve, report: Report | None) -> Path:
    """One stage; the file of its adapters."""
    state, own = together(), stage.own
    report = report if state.is_main_process else None
    loaded = _load(stage, str(state.device))
    tokeniser = Tokeniser(loaded.processor, loaded.feeding.image_token_id, max_length=stage.plan.max_length)
    with state.main_process_first():
        files = [resolve(part) for part in own.data]
    found = (one for file, images in files for one in read_samples(file, images))
    data = make_ready(found, tokeniser, loaded.feeding, report=report)
    if state.is_main_process:
        _write_down(data, stage.folder)
    _check(data, stage)
    bf16 = pick_dtype(state.device).dtype == torch.bfloat16 if own.bf16 == "auto" else own.bf16
    settings = own.settings(len(data.rows), processes=state.num_processes, bf16=bf16, seed=stage.plan.seed)
    read = _reader(stage, loaded, data, report)
    if data.pictures:
        loaded.parts.know_widths(read([next(iter(data.pictures))])[0])
    frozen = values_sha256(loaded.parts.frozen_values())
    began = values_sha256(
        {name: value for name, value in loaded.parts.named_parameters() if value.requires_grad}
    )
    names = loaded.parts.trained_names
    last = fit(
        loaded.parts,
        loss_of,
        Batches(data, tokeniser, read, batch_size=settings.per_device_train_batch_size, seed=stage.plan.seed),
        settings,
        stage.folder,
        identity={
            "data": data.sha256,
            "from": began,
            "frozen": frozen,
            "processes": state.num_processes,
            "trained": names if len(names) < 8 else [names[0], "...", names[-1], len(names)],
            "features": stage.plan.features_dtype if stage.plan.cache_features else "not stored",
        },
        report=report,
        summed=True,
        kept=names,
        checkpointing=own.gradient_checkpointing,
    )
    if state.is_main_process:
        _finish(stage, loaded, last, frozen=frozen, began=began)
    state.wait_for_everyone()
    return stage.folder / ADAPTERS


def _load(stage: _Stage, device: str) -> _Loaded:
    """The model as it came, with the adapters of the stage before and with LoRA where it is asked for."""
    with quiet():
        vlm = load_vlm(stage.plan.model, device=device, dtype=stage.plan.dtype)
    feeding = feeding_of(vlm.model, vlm.processor)
    if stage.adapters is not None:
        load_adapters(feeding.adapters, stage.adapters)
    lora, wrapped = stage.own.lora, None
    if lora is not None:
        wrapped = put_lora(vlm.model, feeding.language, lora, seed=stage.plan.seed)
    parts = TaughtParts(
        vlm.model,
        feeding,
        "adapters" if stage.name == "stage1" else "adapters+language",
        auxiliaries=stage.auxiliaries,
    )
    for parameter in parts.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return _Loaded(model=vlm.model, processor=vlm.processor, feeding=feeding, wrapped=wrapped, parts=parts)


def _check(data: Dataset, stage: _Stage) -> None:
    counts, where = data.counts, stage.folder / "quarantined.jsonl"
    if not counts.rows:
        raise UserError(
            f"{stage.name}: of {counts.rejected} rows none can be learnt from; {where} says why of each"
        )
    if stage.name == "stage1" and not data.pictures:
        raise UserError("stage1 trains what stands between images and language, and its data has no image")
    if counts.rejected or counts.cut_rows:
        logger.warning(
            "%s: %d rows are learnt from, %d set aside (%s); %d cut to max_length %d, with %d images",
            stage.name, counts.rows, counts.rejected, where, counts.cut_rows, stage.plan.max_length, counts.cut_images,
        )  # fmt: skip


def _write_down(data: Dataset, folder: Path) -> None:
    lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in data.rejected]
    write_bytes(folder / "quarantined.jsonl", "".join(lines).encode("utf8", "backslashreplace"))
    write_json(folder / "data.json", {**asdict(data.counts), "sha256": data.sha256})


def _reader(stage: _Stage, loaded: _Loaded, data: Dataset, report: Report | None) -> Read:
    """What gives features: the store, filled by all processes together, or the encoders each time anew."""
    if not stage.plan.cache_features:
        return direct(loaded.feeding.features, data.pictures)
    state = together()
    folder = Path(stage.plan.features_dir or Path(stage.plan.output_dir) / "features")
    identity = identity_of(loaded.feeding, loaded.model, loaded.processor, stage.plan.features_dtype)
    with state.main_process_first():
        store = FeatureStore(folder, loaded.feeding.features, identity, process=state.process_index)
    store.fill(data.pictures, processes=state.num_processes, report=report)
    state.wait_for_everyone()
    store.reload()
    return store


def _finish(stage: _Stage, loaded: _Loaded, last: Path, *, frozen: str, began: str) -> None:
    """Check what was frozen, and write adapters and model."""
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):  # the parts in memory are shards by now
        values = load_file(last / WEIGHTS)
        loaded = _load(stage, "cpu")
        whole = {name for name, _ in loaded.parts.named_parameters()}
        put_named(loaded.parts, {name: values[name] for name in whole & values.keys()}, whole)
    now = values_sha256(loaded.parts.frozen_values())
    if now != frozen:
        raise RuntimeError(f"{stage.name}: frozen weights have changed: their hash was {frozen}, is {now}")
    if values_sha256({n: p for n, p in loaded.parts.named_parameters() if p.requires_grad}) == began:
        logger.warning("%s: not one weight has changed; is the learning rate 0 all the time?", stage.name)
    save_adapters(loaded.feeding.adapters, stage.folder / ADAPTERS)
    if stage.last:
        _save_model(stage, loaded)


def _save_model(stage: _Stage, loaded: _Loaded) -> None:
    out, model = Path(stage.plan.output_dir), loaded.model
    if loaded.wrapped is not None and stage.own.lora is not None:
        model = save_lora(loaded.wrapped, out / "lora", stage.own.lora.save)
    model.eval()
    with quiet():
        model.save_pretrained(out / "model")
        loaded.processor.save_pretrained(out / "model")
