"""Routes in the registry: numbered on together with activations, and never rewritten."""

import threading

import pytest

from app.errors import Conflict, RouteNotFound
from app.registry import Match, MatchFilter, Registry, RouteTerms
from app.registry import routes as registry_routes
from tests.registry.jobs import add


def test_activations_and_routes_share_one_count_of_generations(registry: Registry) -> None:
    encoder = add(registry)
    registry.activations.append(encoder.id, reason="start")

    def change(name: str) -> None:
        for lang in ("de", "es", "fr", "vi", "zh"):
            match = Match(lang=(lang,))
            registry.activations.change_route(name, RouteTerms(encoder_id=encoder.id, match=match), reason="set")
            registry.activations.append(encoder.id, reason="activate")

    threads = [threading.Thread(target=change, args=(name,)) for name in ("legal", "medical")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    of_routes = [each.generation for name in ("legal", "medical") for each in registry.routes.history(name)]
    of_active = [each.generation for each in registry.activations.newest(100)]
    assert sorted(of_routes + of_active) == list(range(1, 22))
    serving = registry.activations.serving()
    assert serving is not None
    assert (serving.generation, registry.activations.generation()) == (21, 21)
    assert [(each.name, each.terms.match) for each in serving.routes] == [
        ("legal", Match(lang=("zh",))),
        ("medical", Match(lang=("zh",))),
    ]


def test_a_value_of_another_kind_is_another_route(registry: Registry) -> None:
    encoder = add(registry)
    registry.activations.append(encoder.id, reason="start")
    for value, changed in ((1, True), (True, True), (True, False), ("1", True)):
        terms = RouteTerms(encoder_id=encoder.id, match=Match(filter=MatchFilter(key="year", value=value)))
        assert registry.activations.change_route("r", terms, reason="set").changed == changed
        assert registry.routes.find("r").terms == terms


def test_there_are_only_so_many_and_none_without_its_encoder(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_routes, "MAX_ROUTES", 2)
    base, bees = add(registry, "base"), add(registry, "bees", "sha256:b")
    registry.activations.append(base.id, reason="start")
    change = registry.activations.change_route
    for name in ("a", "b"):
        change(name, RouteTerms(encoder_id=base.id), reason="set")
    with pytest.raises(Conflict, match="There are 2 routes"):
        change("c", RouteTerms(encoder_id=base.id), reason="set")
    change("a", None, reason="removed")
    with pytest.raises(RouteNotFound, match="removed in generation 4"):
        change("a", None, reason="removed")
    with pytest.raises(RouteNotFound, match="there are b"):
        registry.routes.find("c")
    registry.encoders.delete(bees.id)
    with pytest.raises(Conflict, match="deleted while the route was being set"):
        change("c", RouteTerms(encoder_id=bees.id), reason="set")
    change("c", RouteTerms(encoder_id=base.id), reason="set")
    assert [each.name for each in registry.routes.standing()] == ["b", "c"]
