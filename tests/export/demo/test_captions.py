import random

import pytest
from sdengine.engines.errors import UsageError
from sdengine.export.demo.training.captions import (
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    all_scenes,
    caption,
    held_out,
    plain_caption,
    scene_of_seed,
)


def test_every_scene_is_there_once() -> None:
    scenes = all_scenes()
    assert len(scenes) == len(set(scenes)) == 10 * 9 * 6 * 3


def test_held_out_scenes_are_an_eighth_and_leave_every_word_to_training() -> None:
    kept = [scene for scene in all_scenes() if not held_out(scene)]
    assert 0.10 < 1 - len(kept) / len(all_scenes()) < 0.15
    assert {scene.colour for scene in kept} == {scene.background for scene in kept} == set(COLOURS)
    assert {scene.shape for scene in kept} == set(SHAPES)
    assert {scene.size for scene in kept} == set(SIZES)


def test_held_out_is_a_fact_of_the_words_and_not_of_the_run() -> None:
    # Pinned: another choice would judge the committed weights on scenes they were trained on.
    assert [number for number, scene in enumerate(all_scenes()) if held_out(scene)][:6] == HELD_OUT


HELD_OUT = [8, 18, 44, 48, 52, 61]


def test_seeds_choose_from_their_own_side() -> None:
    assert not any(held_out(scene_of_seed(seed)) for seed in range(100))
    assert all(held_out(scene_of_seed(seed, fresh=True)) for seed in range(100))
    assert scene_of_seed(7) == scene_of_seed(7)
    assert len({scene_of_seed(seed) for seed in range(50)}) > 40


def test_captions_name_what_is_drawn() -> None:
    scene = Scene(colour="orange", shape="star", size="medium", background="blue")
    assert plain_caption(scene) == "an orange star on a blue background"
    sentences = {caption(scene, random.Random(seed)) for seed in range(200)}
    assert len(sentences) >= 10
    for sentence in sentences:
        assert {"orange", "star", "blue"} <= set(sentence.replace(",", "").split())
        assert "a orange" not in sentence
        assert "small" not in sentence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "bleu"}, "no colour 'bleu'; did you mean 'blue'"),
        ({"shape": "rings"}, "no shape 'rings'; did you mean 'ring'"),
        ({"size": "huge"}, r"no size 'huge' \(known: small, medium, large\)"),
        ({"background": "red"}, "cannot be seen"),
    ],
)
def test_a_scene_that_cannot_be_drawn_says_why(change: dict[str, str], message: str) -> None:
    words = {"colour": "red", "shape": "ring", "size": "small", "background": "blue"}
    with pytest.raises(UsageError, match=message):
        Scene(**{**words, **change})
