import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sdengine.export.demo.training.captions import plain_caption
from sdengine.export.demo.training.evaluate import CROP, evaluate, fresh_scenes, table
from sdengine.export.demo.training.scene_images import draw

Pixels = npt.NDArray[np.uint8]

COUNT = 60
SCENES = {plain_caption(scene): scene for scene in fresh_scenes(COUNT)}


def the_program(
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    original_size: tuple[int, int] = (128, 128),
    crops_coords_top_left: tuple[int, int] = (0, 0),
) -> list[Pixels]:
    return [
        draw(SCENES[prompt], seed, crop=crops_coords_top_left, original_size=original_size)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


def test_the_program_that_draws_the_data_set_does_everything_right() -> None:
    figures = evaluate(the_program, count=COUNT)
    assert figures.prompts == COUNT
    assert (figures.background, figures.colour, figures.crop_direction) == (1, 1, 1)
    assert figures.all_right >= 0.98
    assert figures.crop_shift == pytest.approx(CROP, abs=1)
    assert figures.softened >= 0.98
    assert figures.coarse_edges > 3 * figures.sharp_edges


def test_prompts_of_other_pictures_are_met_by_chance_only() -> None:
    def shuffled(prompts: Sequence[str], seeds: Sequence[int], **micro: Any) -> list[Pixels]:
        return the_program([prompts[-1], *prompts[:-1]], seeds, **micro)

    figures = evaluate(shuffled, count=COUNT)
    assert figures.background < 0.3
    assert figures.colour < 0.3
    assert figures.shape < 0.4
    assert figures.size < 0.6
    assert figures.all_right < 0.05


def test_micro_conditioning_that_does_nothing_is_noticed() -> None:
    figures = evaluate(lambda prompts, seeds, **micro: the_program(prompts, seeds), count=20)
    assert figures.all_right >= 0.95
    assert (figures.crop_direction, figures.crop_shift, figures.softened) == (0, 0, 0)


def test_crops_the_wrong_way_are_noticed() -> None:
    def mirrored(
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        **rest: Any,
    ) -> list[Pixels]:
        top, left = crops_coords_top_left
        return the_program(prompts, seeds, crops_coords_top_left=(-top, -left), **rest)

    figures = evaluate(mirrored, count=20)
    assert figures.crop_direction == 0
    assert figures.crop_shift < 0


def test_empty_pictures_are_no_error_and_no_success() -> None:
    figures = evaluate(lambda prompts, seeds, **micro: [np.zeros((128, 128, 3), np.uint8) for _ in prompts], count=20)
    assert (figures.shape, figures.all_right, figures.crop_direction, figures.softened) == (0, 0, 0, 0)


def test_a_drawer_that_loses_pictures_is_told() -> None:
    with pytest.raises(ValueError, match="20 pictures were asked for and 19 drawn"):
        evaluate(lambda prompts, seeds, **micro: the_program(prompts, seeds)[1:], count=20)


def test_the_table_says_what_was_measured() -> None:
    text = table(evaluate(the_program, count=20))
    assert re.search(r"\| background \| 100\.0 % \|", text)
    assert "20 fresh prompts" in text
