"""What a training stage can be told. A stage is one entry of a recipe's `stages:`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from argus.core.registry import Options


class DataOptions(Options):
    """Where a stage's samples come from: the procedural world, files, or both."""

    world: dict[str, float] = Field(default_factory=dict, description="domain -> weight in the mixture")
    domains: dict[str, dict[str, Any]] = Field(default_factory=dict, description="options per domain")
    files: list[str] = Field(default_factory=list, description="datasets in any readable format, used beside the world")
    size: int = Field(96, ge=32, le=1024, description="side of the rendered pictures in pixels")
    questions: int = Field(8, ge=1, le=64, description="question-answer turns per picture")
    start: int = Field(0, ge=0, description="first index of the split, so that a later stage sees new scenes")
    families: list[str] = Field(default_factory=list, description="question families; all when empty")
    distinct: int | None = Field(None, ge=1, description="different items of the world, then the same ones again; no end if null")

    @model_validator(mode="after")
    def _something(self) -> DataOptions:
        if not self.world and not self.files:
            raise ValueError("a stage needs data: name at least one domain under 'world' or one file under 'files'")
        if any(weight <= 0 for weight in self.world.values()):
            raise ValueError("weights under 'world' must be positive")
        return self


class StageOptions(Options):
    """One training stage."""

    objective: dict[str, dict[str, Any]] | str = Field(description="what is learned: a name, or {name: {options}}")
    data: DataOptions
    train: list[str] = Field(
        default_factory=list,
        description="parts that learn (vision_tower, multi_modal_projector, language_model, lm_head; language_model.norm; "
        "vision_tower.last2 for the last two blocks of an encoder); all when empty",
    )
    freeze: list[str] = Field(default_factory=list, description="parts that stay fixed, taken from the above")
    anew: list[str] = Field(default_factory=list, description="parts whose weights are drawn anew before the first step")
    tuner: dict[str, dict[str, Any]] | None = Field(None, description="train few weights instead: {lora: {r: 8}}")
    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1, description="pictures (or texts) per optimiser step, over all processes")
    accumulation: int = Field(1, ge=1, description="forward passes per optimiser step; divides batch_size")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: orthogonal steps for hidden matrices, AdamW for the rest; at the same rate, learns in fewer steps",
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    learning_rates: dict[str, float] = Field(default_factory=dict, description="peak learning rate per part")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay, not on norms and biases")
    beta2: float = Field(0.98, gt=0, lt=1, description="second-moment decay of AdamW")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the rate rises")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="how the rate falls afterwards")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient clipping")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="autocast type; weights stay fp32")
    checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    compile: bool = Field(False, description="torch.compile the towers")
    fsdp: bool = Field(False, description="shard weights over GPUs with FSDP2; start with torchrun")
    save_every: int = Field(500, ge=1, description="steps between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between log lines")
    workers: int = Field(0, ge=0, le=64, description="processes that draw samples")
    seed: int = Field(0, ge=0, description="seed of weights, order and dropout")

    @model_validator(mode="after")
    def _consistent(self) -> StageOptions:
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation ({self.accumulation}) must divide batch_size ({self.batch_size})")
        if self.fsdp and self.optimizer == "muon":
            raise ValueError("muon needs whole matrices, which fsdp splits over GPUs; take adamw, or leave fsdp out")
        return self

    def objective_name(self) -> str:
        """Name of the objective component."""
        return self.objective if isinstance(self.objective, str) else next(iter(self.objective))

    def objective_options(self) -> dict[str, Any]:
        """Options of the objective component."""
        return {} if isinstance(self.objective, str) else next(iter(self.objective.values()))
