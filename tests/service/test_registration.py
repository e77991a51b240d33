"""`POST /encoders` and its refusals, on real files. After every refusal nothing is left behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.client import AdiabatClient, ApiError
from app.encoders.digest import digest_encoder
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import read_spec
from tests.conftest import Service
from tests.service import encoders
from tests.tiny import build_tiny


def leftovers(service: Service) -> set[str]:
    return {
        path.name for path in service.settings.artifacts_dir.iterdir() if "@" in path.name or "staging" in path.name
    }


def refusal(client: AdiabatClient, path: Path, *, force: bool = False) -> ApiError:
    with pytest.raises(ApiError) as caught:
        client.register_encoder("other", path=str(path), force=force)
    return caught.value


def test_a_gently_moved_encoder_is_probed_and_kept_as_a_delta(service: Service, tiny: Path, sources: Path) -> None:
    made = service.client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
    assert (made.name, made.version, made.admission, made.state) == ("bees", 1, "probed", "ready")
    assert {check["check"]: check["passed"] for check in made.checks}["probe cosine to base"]
    assert service.parts.artifacts.manifest("bees@1").form == "delta"
    base = service.client.encoder("base@1")
    assert made.size_bytes < base.size_bytes


def test_the_same_files_again_are_the_same_encoder(client: AdiabatClient, tiny: Path, sources: Path) -> None:
    folder = str(encoders.near(tiny, sources / "bees"))
    first, again = client.register_encoder("bees", path=folder), client.register_encoder("bees", path=folder)
    assert (again.version, again.digest) == (1, first.digest)
    other = client.register_encoder("bees", path=str(encoders.near(tiny, sources / "two", seed=2)))
    assert other.version == 2
    assert client.encoder("bees").versions == [1, 2]


def test_an_encoder_that_carries_the_bases_lineage_is_verified(service: Service, tiny: Path, sources: Path) -> None:
    folder = encoders.near(tiny, sources / "bees", scale=0.5)  # so far that probes alone would refuse it
    files = EncoderFiles(folder, None)
    base = service.parts.artifacts.manifest("base@1")
    replace(base, digest=digest_encoder(files, read_spec(files)), base_digest=base.digest).write(folder)
    assert service.client.register_encoder("bees", path=str(folder)).admission == "verified"


def test_a_lineage_does_not_count_for_weights_it_was_not_written_for(service: Service, sources: Path) -> None:
    folder = build_tiny(sources / "stranger", seed=5)
    service.parts.artifacts.manifest("base@1").write(folder)
    error = refusal(service.client, folder)
    assert (error.status, error.slug) == (409, "encoder-refused")


def test_an_unrelated_encoder_is_refused_with_figures_and_force_marks_it(service: Service, sources: Path) -> None:
    service.client.upsert_passages(
        [{"id": str(n), "text": f"the {word} valve"} for n, word in enumerate("abcdefghijklmnop")]
    )
    folder = build_tiny(sources / "stranger", seed=5)
    error = refusal(service.client, folder)
    assert (error.status, error.slug) == (409, "encoder-refused")
    assert "probe cosine to base is 0." in error.detail or "probe cosine to base is -0." in error.detail
    assert "force=true" in error.detail
    assert leftovers(service) == {"base@1"}
    assert service.client.register_encoder("other", path=str(folder), force=True).admission == "forced"


@pytest.mark.parametrize("force", [False, True])
def test_another_dimension_is_refused_even_by_force(service: Service, sources: Path, force: bool) -> None:
    error = refusal(service.client, build_tiny(sources / "wide", hidden=64), force=force)
    assert (error.status, error.slug) == (409, "encoder-refused")
    assert "64 dimensions" in error.detail
    assert "32" in error.detail


@pytest.mark.parametrize(
    ("breakage", "slug", "word"),
    [
        (encoders.with_nan, "encoder-broken", "NaN"),
        (encoders.truncated, "encoder-broken", "model.safetensors"),
        (encoders.pickled, "source-refused", "pickle"),
        (encoders.with_remote_code, "source-refused", "evil"),
    ],
)
def test_broken_and_unsafe_folders_are_refused_with_a_sentence_even_by_force(
    unchanged: Service, tiny: Path, breakage: Callable[[Path, Path], Path], slug: str, word: str
) -> None:
    before = unchanged.client.active_encoder()
    folder = breakage(tiny, unchanged.settings.source_dirs[0] / breakage.__name__)
    error = refusal(unchanged.client, folder, force=True)
    assert error.slug == slug
    assert word in error.detail
    assert leftovers(unchanged) == {"base@1"}
    assert unchanged.client.active_encoder() == before
    assert [item.name for item in unchanged.client.encoders()] == ["base"]


def test_a_path_outside_the_allowed_folders_is_refused_however_it_is_written(
    client: AdiabatClient, tiny: Path, sources: Path
) -> None:
    (sources / "link").symlink_to(tiny)
    for path in (tiny, sources / ".." / ".." / tiny.name, sources / "link", Path("relative")):
        error = refusal(client, path)
        assert (error.status, error.slug) == (422, "source-refused")


def test_an_empty_folder_is_refused_naming_what_is_missing(client: AdiabatClient, sources: Path) -> None:
    (sources / "empty").mkdir()
    assert "modules.json" in refusal(client, sources / "empty").detail


def test_the_bases_name_cannot_be_taken(client: AdiabatClient, tiny: Path, sources: Path) -> None:
    with pytest.raises(ApiError, match="means the passage encoder"):
        client.register_encoder("base", path=str(encoders.near(tiny, sources / "x")))
    with pytest.raises(ApiError, match="'active' means whatever encoder is active"):
        client.register_encoder("active", path=str(sources / "x"))


def test_what_is_active_previous_or_base_cannot_be_deleted(service: Service, tiny: Path, sources: Path) -> None:
    client = service.client
    for name, seed in (("one", 1), ("two", 2)):
        client.register_encoder(name, path=str(encoders.near(tiny, sources / name, seed=seed)))
        client.activate(name)
    for key, role in (("two@1", "active"), ("one@1", "previous"), ("base@1", "base")):
        with pytest.raises(ApiError, match=role) as caught:
            client.delete_encoder(key)
        assert caught.value.status == 409
    client.activate("base")
    copies = set(service.parts.artifacts.weights.iterdir())
    client.delete_encoder("one@1")
    assert "one@1" not in leftovers(service)
    assert len(copies - set(service.parts.artifacts.weights.iterdir())) == 1
    with pytest.raises(ApiError) as caught:
        client.activate("one@1")
    assert caught.value.status == 409
    with pytest.raises(ApiError) as caught:
        client.search("water", encoder="one@1")
    assert caught.value.status == 404
