"""What a sample's rows have in common is computed once, and comes out as if it had been computed for each."""

from collections import Counter
from typing import Any

import pytest
import torch
from sdengine.engines.nets.conditioner import unpack_key_values
from sdengine.engines.nets.config import UNetConfig
from sdengine.engines.nets.unet import UNet

from .test_parity import INPAINT, LCM, SD1, SDXL, conditions, prepared, randomise

ROW_SAMPLE = torch.tensor([0, 1, 1, 0, 1])
FIRST_ROW = torch.tensor([0, 1])


def _unet(options: dict[str, Any]) -> Any:
    return randomise(UNet(UNetConfig.from_diffusers(options, pooled=20)))


@pytest.mark.parametrize("options", [SD1, LCM, INPAINT, SDXL], ids=["sd1", "lcm", "inpaint", "sdxl"])
def test_rows_come_out_as_if_each_were_computed(options: dict[str, Any]) -> None:
    unet = _unet(options)
    x, times = torch.randn(2, unet.config.in_channels, 10, 14), torch.tensor([900.0, 33.0])
    packed, embedding, offset = prepared(unet, conditions(unet.config, 5, 7))
    given = {"key_values": unpack_key_values(unet, packed), "embedding": embedding, "offset": offset}
    if offset is not None:  # a sample's rows are of one guidance
        given["offset"] = offset[:2][ROW_SAMPLE]
    alone = unet(x[ROW_SAMPLE], times[ROW_SAMPLE], **given)
    shared = unet(x, times[ROW_SAMPLE], rows=(ROW_SAMPLE, FIRST_ROW), **given)
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("options", "rows"), [(SD1, 2), (SDXL, 5)], ids=["sd1", "sdxl"])
def test_only_where_the_text_is_not_in_the_embedding(options: dict[str, Any], rows: int) -> None:
    unet = _unet(options)
    seen: Counter[int] = Counter()
    unet.down_blocks[0].resnets[0].conv1.register_forward_pre_hook(lambda module, given: seen.update([len(given[0])]))
    packed, embedding, offset = prepared(unet, conditions(unet.config, 5, 7))
    unet(
        torch.randn(2, 4, 10, 14),
        torch.zeros(5),
        unpack_key_values(unet, packed),
        embedding=embedding,
        offset=offset,
        rows=(ROW_SAMPLE, FIRST_ROW),
    )
    assert seen == {rows: 1}
