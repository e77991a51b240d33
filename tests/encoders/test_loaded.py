"""How a long request is cut into runs of the engine."""

from app.encoders.loaded import TURN_TEXTS, TURN_TOKENS, in_turns


def test_a_turn_ends_at_its_texts_or_at_its_tokens_whichever_comes_first() -> None:
    short, long = ["oil"] * (2 * TURN_TEXTS + 1), ["oil filter " * 700] * 9
    assert [len(turn) for turn in in_turns(short, 256)] == [TURN_TEXTS, TURN_TEXTS, 1]
    assert [len(turn) for turn in in_turns(long, 256)] == [TURN_TOKENS // 256] * 2 + [1]
    assert [len(turn) for turn in in_turns(long[:2], 8_192)] == [1, 1]
    mixed = ["oil", *long[:2], "fire"]
    assert [text for turn in in_turns(mixed, 1_024) for text in turn] == mixed
