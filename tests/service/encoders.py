"""Encoders that the service's tests register: near the base, far from it, and broken in every way."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def near(base: Path, folder: Path, *, scale: float = 0.02, seed: int = 1) -> Path:
    """A copy of `base` whose weights, embeddings excepted, moved a little, as a tuning would move them."""
    shutil.copytree(base, folder)
    random = np.random.default_rng(seed)
    tensors = load_file(folder / WEIGHTS)
    for name, value in tensors.items():
        if "embeddings" not in name:
            tensors[name] = value + (scale * random.standard_normal(value.shape)).astype(np.float32)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


def with_nan(base: Path, folder: Path) -> Path:
    shutil.copytree(base, folder)
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if name.endswith("attention.self.query.weight"))
    tensors[name] = np.full_like(tensors[name], np.nan)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


def truncated(base: Path, folder: Path) -> Path:
    shutil.copytree(base, folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    return folder


def pickled(base: Path, folder: Path) -> Path:
    """Weights only as a pickle, which may run code when it is read."""
    shutil.copytree(base, folder)
    tensors = {name: torch.from_numpy(value) for name, value in load_file(folder / WEIGHTS).items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    return folder


def with_remote_code(base: Path, folder: Path) -> Path:
    shutil.copytree(base, folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "evil.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
