"""A training as people write it down in YAML: which model, which data, which stages; argument names are transformers' own."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from eyechart.core.config import build, read_yaml
from eyechart.core.errors import UserError
from eyechart.train.feature_store import Format
from eyechart.train.loop import Settings
from eyechart.train.lora import LoraPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """One set to learn from."""

    file: str = ""
    """A `.json`, `.jsonl` or `.parquet` of conversations; a relative path starts from the recipe's folder."""

    images: str | None = None
    """The folder that its images' paths start from; the file's own unless given."""

    world: str | None = None
    """Instead of a file: a rendered set of scenes, turned into questions or captions."""

    teach: Literal["captions", "questions", "both"] = "both"
    """What of the world."""

    def __post_init__(self) -> None:
        """One of file and world."""
        if bool(self.file) == bool(self.world):
            raise UserError(f"data: file {self.file!r} and world {self.world!r}; give one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """How a stage is trained. Every name but `data` and `lora` is one of `transformers.TrainingArguments`."""

    data: tuple[DataPlan, ...]
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float
    num_train_epochs: float = 1.0
    max_steps: int = -1
    """If above zero, it overrides num_train_epochs."""

    warmup_steps: float = 0.03
    """Below 1 a share of all steps."""

    lr_scheduler_type: str = "cosine"
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    bf16: bool | Literal["auto"] = "auto"
    """`auto`: on a GPU that computes in it."""

    gradient_checkpointing: bool = False
    """transformers' newer name for it is activation_checkpointing."""

    logging_steps: int = 10
    save_steps: int = 200
    dataloader_num_workers: int = 0
    lora: LoraPlan | None = None
    """Stage 2: train LoRA in the language model instead of all of it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.data:
            raise UserError("data is empty; a stage needs at least one set")
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            if (given := getattr(self, name)) < 1:
                raise UserError(f"{name} is {given}; it must be at least 1")
        if self.max_steps < 1 and self.num_train_epochs <= 0:
            raise UserError(
                f"max_steps is {self.max_steps} and num_train_epochs {self.num_train_epochs}; one must be above 0"
            )

    def settings(self, rows: int, *, processes: int, bf16: bool, seed: int) -> Settings:
        """For `fit`: as many steps as the epochs have over that many rows, on so many processes.

        Raises:
            UserError: a batch is larger than the set.
        """
        if self.per_device_train_batch_size > rows:
            raise UserError(
                f"per_device_train_batch_size is {self.per_device_train_batch_size}, and there are {rows} rows to learn from"
            )
        batches = self.num_train_epochs * (rows // self.per_device_train_batch_size)
        whole = max(1, math.ceil(batches / (self.gradient_accumulation_steps * processes)))
        steps = self.max_steps if self.max_steps > 0 else whole
        share = self.warmup_steps
        given = asdict(self)
        for name in ("data", "lora", "num_train_epochs", "gradient_checkpointing"):
            del given[name]
        given |= {"max_steps": steps, "bf16": bf16, "seed": seed}
        given["warmup_steps"] = math.ceil(share * steps) if share < 1 else int(share)
        return Settings(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """Two stages in LLaVA's way, or one of them."""

    model: str
    """A hub id, a checkpoint folder or zoo:NAME: a LLaVA, or a mixture of features."""

    output_dir: str
    stage1: StagePlan | None = None
    """Trains the adapters alone."""

    stage2: StagePlan | None = None
    """Trains adapters and language model."""

    max_length: int = 2048
    """Tokens of a conversation, image tokens included; what is longer is cut at its end, never through an image."""

    cache_features: bool = True
    """What the frozen encoders see of each image is computed once and stored."""

    features_dir: str | None = None
    """Where; `output_dir/features` unless given. Runs may share one."""

    features_dtype: Format = "float32"
    """float16 takes half the room and rounds."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of frozen weights; what is trained is float32."""

    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.stage1 is None and self.stage2 is None:
            raise UserError("there is neither stage1 nor stage2; a recipe needs one of them")
        if self.stage1 is not None and self.stage1.lora is not None:
            raise UserError("stage1 has lora, but it trains the adapters alone; lora belongs in stage2")

    @property
    def stages(self) -> dict[str, StagePlan]:
        """Those that are given, in order."""
        both = {"stage1": self.stage1, "stage2": self.stage2}
        return {name: plan for name, plan in both.items() if plan is not None}


def read_plan(file: Path, given: dict[str, Any] | None = None) -> TrainPlan:
    """A recipe file; paths in it start from its folder.

    Args:
        given: options that override the file's: `output_dir`, `seed`, and for each stage `max_steps` and
            `per_device_train_batch_size`.

    Raises:
        UserError: the file is missing or no YAML, or an option is unknown, missing or of a wrong type.
    """
    options = read_yaml(file)
    for name, value in (given or {}).items():
        if name in ("output_dir", "seed"):
            options[name] = value
            continue
        for stage in ("stage1", "stage2"):
            if isinstance(options.get(stage), dict):
                options[stage] = options[stage] | {name: value}
    return build(TrainPlan, options, name=file.name)


def from_folder(path: str, folder: Path) -> Path:
    """A path in a recipe as it is meant: relative ones start from the recipe's folder, `~` is the home folder."""
    return folder / Path(path).expanduser()
