"""Makes the demo checkpoint: ``python -m sdengine.export.demo.training.train --work DIR``.

Everything is seeded, and a run that was stopped goes on where it was: the tokenizers are learned, the autoencoder is
trained, the data set is drawn and encoded, the denoiser and text encoders are trained. At every report the present
average is written to ``DIR/checkpoint``, judged on a few fresh prompts and drawn as ``DIR/sheet-STEP.png``.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPTokenizer

from .captions import plain_caption
from .evaluate import Draw, evaluate, fresh_scenes, table
from .latent_data import encode_data_set, token_ids
from .painter import Painter, drawer
from .train_tokenizer import EOS, learn_merges, write_tokenizer
from .train_unet import train_painter
from .train_vae import train_vae
from .training_run import Average, Plan, log
from .write_checkpoint import write_checkpoint

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or go on training, from the command line."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)

    merges = learn_merges()
    vocabulary = write_tokenizer(work / "checkpoint" / "tokenizer", merges, pad=EOS)
    write_tokenizer(work / "checkpoint" / "tokenizer_2", merges, pad="!")
    folders = (work / "checkpoint" / "tokenizer", work / "checkpoint" / "tokenizer_2")
    tokenizers = (CLIPTokenizer.from_pretrained(folders[0]), CLIPTokenizer.from_pretrained(folders[1]))

    joint = Plan(steps=options.vae_steps, decay=options.vae_decay, peak=2e-3, seed=options.seed)
    decoder = Plan(steps=options.decoder_steps, decay=options.decoder_steps // 2, peak=1e-3, seed=options.seed + 1)
    vae = train_vae(work, joint=joint, decoder=decoder)
    latents = encode_data_set(
        vae, tokenizers, work, main=options.pictures, other=options.other_pictures, seed=options.seed
    )

    def look(step: int, average: Average) -> None:
        if step % options.look_every and step != options.steps:
            return
        painter = Painter(vocabulary)
        painter.load_state_dict(average.weights)
        write_checkpoint(work / "checkpoint", painter.eval(), vae, merges)
        if not options.look_at:
            return
        draw = drawer(painter, vae, tokenizers)
        _write_sheet(work / f"sheet-{step}.png", draw)
        log.info("after %d steps\n%s", step, table(evaluate(draw, count=options.look_at)))

    empty = (token_ids(tokenizers[0], [""]), token_ids(tokenizers[1], [""]))
    plan = Plan(steps=options.steps, decay=options.decay, peak=options.rate, seed=options.seed + 2)
    train_painter(latents, empty, work, plan, vocabulary=vocabulary, after_save=look, batch=options.batch)


def _write_sheet(file: Path, draw: Draw) -> None:
    """Write a contact sheet of fresh prompts: three rows plain, then cropped and coarse."""
    prompts = [plain_caption(scene) for scene in fresh_scenes(30)]
    rows: list[Any] = list(draw(prompts, range(30)))
    rows += draw(prompts[:10], range(10), crops_coords_top_left=(0, 24))
    rows += draw(prompts[:10], range(10), original_size=(10, 10))
    lines = [np.concatenate(rows[first : first + 10], axis=1) for first in range(0, len(rows), 10)]
    Image.fromarray(np.concatenate(lines)).save(file)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sdengine.export.demo.training.train", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of states, cached latents and results")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vae-steps", type=int, default=2200)
    parser.add_argument("--vae-decay", type=int, default=700)
    parser.add_argument("--decoder-steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=18_000, help="of 128 x 128")
    parser.add_argument("--other-pictures", type=int, default=0, help="of each other size; a quarter of the steps")
    parser.add_argument("--steps", type=int, default=7600, help="of the denoiser and text encoders")
    parser.add_argument("--decay", type=int, default=1800, help="the last steps, in which the rate falls to zero")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--look-every", type=int, default=1000, help="steps between two reports (a multiple of 200)")
    parser.add_argument(
        "--look-at", type=int, default=40, help="fresh prompts in a report; 0: only write the checkpoint"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
