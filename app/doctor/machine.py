"""The machine: Python, torch, the engine that would run, the processor."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.doctor.finding import Finding, fail, ok, warn
from app.encoders.cores import allowed_cores, whole_cores
from app.encoders.engine import GPU, chosen, has_gpu
from app.settings import Settings

CPUINFO = Path("/proc/cpuinfo")
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
}

NAMES = {"onnx": ("ONNX Runtime", "onnxruntime"), "openvino": ("OpenVINO", "openvino"), "torch": ("torch", "torch")}


def python() -> Finding:
    return ok("python", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}.")


def torch_build() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return fail(
            "torch",
            f"torch cannot be imported ({error}); tuning and the export of graphs need it.",
            "Install the build for this machine again; README.md, 'CPU or CUDA', says how.",
        )
    cuda: str | None = torch.version.cuda
    said = f"torch {torch.__version__}, a build for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if not has_gpu() or torch.cuda.is_available():
        return ok("torch", f"{said}.")
    return warn(
        "torch",
        f"{said}, cannot use this machine's GPU.",
        "Install the CUDA build of torch (README.md, 'CPU or CUDA') and look at the driver with nvidia-smi; "
        "until then ADIABAT_ENGINE=onnx serves faster.",
    )


def engine(settings: Settings) -> Finding:
    kind, precision = chosen(settings.engine, settings.precision), settings.precision
    if settings.engine != "auto":
        why = f"because ADIABAT_ENGINE={settings.engine}"
    elif kind == "torch":
        why = f"because there is a GPU ({GPU})"
    else:
        why = f"because there is no GPU ({GPU})" + (
            f" and ADIABAT_PRECISION={precision}" if precision != "fp32" else ""
        )
    if kind == "openvino" and find_spec("openvino") is None:
        return fail(
            "engine",
            f"OpenVINO is not installed, and query encoders should run on it, {why}.",
            "pip install 'adiabat[openvino]', or set ADIABAT_ENGINE=onnx and ADIABAT_PRECISION=fp32.",
        )
    name, package = NAMES[kind]
    said = f"{name} {version(package)} in {precision}, {why}"
    if precision == "bf16" and kind == "onnx":
        return fail(
            "engine", f"Query encoders cannot run on {said}.", "Set ADIABAT_ENGINE=openvino, or ADIABAT_PRECISION=fp32."
        )
    if precision == "bf16" and kind == "openvino":
        from app.encoders.openvino_engine import has_bf16

        if not has_bf16():
            return fail(
                "engine",
                f"Query encoders cannot run on {said}: this processor has no bf16.",
                "Set ADIABAT_PRECISION=fp32.",
            )
    return ok("engine", f"Query encoders run on {said}.")


def processor(settings: Settings) -> Iterator[Finding]:
    flags = _flags()
    known = [name for flag, name in FEATURES.items() if flag in flags]
    cores = os.cpu_count() or 1
    said = f"{cores} cores, {', '.join(known) or 'no vector instructions that are known here'}"
    if "sse2" in flags and "avx2" not in flags:
        yield warn(
            "cpu",
            f"{said}: without AVX2 encoding is several times slower.",
            "In a virtual machine, let it see the host's processor (CPU type 'host').",
        )
    else:
        yield ok("cpu", f"{said}.")
    allowed = allowed_cores()
    if (settings.threads or cores) > allowed:
        yield warn(
            "threads",
            f"{settings.threads or cores} threads would share {allowed:g} cores that this process may use.",
            f"Set ADIABAT_THREADS={whole_cores()}.",
        )


def _flags() -> set[str]:
    """Of the first core; empty where the system does not tell."""
    if not CPUINFO.exists():
        return set()
    for line in CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
