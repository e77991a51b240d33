"""Pin the images that Dockerfile and the compose files name to the digests that their tags have now.

python tools/pin_images.py [--check]     # needs docker (with buildx) and a way to the images' registry

`NAME:TAG` becomes `NAME:TAG@sha256:…`, and one that is pinned is pinned anew. `--check` asks nobody and fails where one
is not pinned.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = "adiabat"
NAMED = r"(?P<image>[^\s@]+)(?P<digest>@sha256:[0-9a-f]{64})?$"
COMPOSED = re.compile(r"(?<=  image: )" + NAMED, re.MULTILINE)
IMAGES = {
    "Dockerfile": re.compile(r"(?<=^ARG PYTHON=)" + NAMED, re.MULTILINE),
    "docker-compose.yml": COMPOSED,
    "deploy/compose.scale.yml": COMPOSED,
}


def main() -> None:
    loose = []
    for name, pattern in IMAGES.items():
        path = ROOT / name
        text = path.read_text()
        if "--check" in sys.argv:
            found = [each for each in pattern.finditer(text) if not is_ours(each) and each["digest"] is None]
            loose += [f"{name}: {each['image']}" for each in found]
        else:
            path.write_text(pattern.sub(pinned, text))
    if loose:
        sys.exit(f"not pinned by digest: {', '.join(loose)}; where a registry is in reach: python tools/pin_images.py")


def pinned(found: re.Match[str]) -> str:
    if is_ours(found):
        return found[0]
    image = found["image"]
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        sys.exit(f"{' '.join(command)} said {digest!r}, which is no digest")
    print(f"{image}@{digest}")
    return f"{image}@{digest}"


def is_ours(found: re.Match[str]) -> bool:
    """Built here, so it has no digest yet."""
    return found["image"].partition(":")[0] == OURS


if __name__ == "__main__":
    main()
