"""Where masks fall in arrhythmia: by the statistical prior alone, and as a run of the second stage has learnt to hide.

python tools/masks_by_rhythm.py --config configs/sigma_ppg_pro.py --data ppg_rhythm
python tools/masks_by_rhythm.py --workdir runs/sigma --data ppg_rhythm

A recipe alone has no mask generator: it gives the prior. Of a run the configuration is what its checkpoint holds.
`--data` is a folder of patient_*.npz with "ppg" (segments, samples) of ten seconds, "rhythm" (segments,) and "rate_hz".
Segments of one patient are joined at random to windows as long as what the encoder sees, so that every rhythm of the
patient competes for the same mask. Patches that touch a join are hidden or not, and not counted. Chance is the share of
patches chosen before any is released; each figure has an interval over patients.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

import numpy as np
from rated_scores import RHYTHMS, interval

from jaxbio.config import changes, fields
from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command

DRAWS = 64  # masks of each window


def main(arguments: Sequence[str]) -> dict:
    """Return, by rhythm, scores of the prior and the share of patches that each way of masking chooses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of patient_*.npz")
    parser.add_argument("--workdir", metavar="DIR", help="run of the second stage whose mask generator is asked")
    parser.add_argument("--seed", type=int, default=0, help="of the order of segments and of the masks")
    flags, config = parse_command(arguments, parser, needs_config=False, needs_networks=False)
    config, generator = find_masks(config, flags.workdir)
    files = sorted(flags.data.glob("patient_*.npz"))
    if not files:
        raise UserError(Fault("--data", str(flags.data), "a folder of patient_*.npz"))
    windows, rhythm_RA, patient_R = join_segments(files, config, np.random.default_rng(flags.seed))
    logging.info("%d windows of %d patients", len(windows), len(np.unique(patient_R)))
    columns_RA = masks_of(windows, config, generator, flags.seed)
    patient_RA = np.repeat(patient_R[:, None], rhythm_RA.shape[1], axis=1)
    table = {}
    for number, name in enumerate(RHYTHMS):
        here_RA = rhythm_RA == number
        if here_RA.any():
            said = {
                column: interval(np.mean, patient_RA[here_RA], value[here_RA]) for column, value in columns_RA.items()
            }
            table[name] = {"patches": int(here_RA.sum()), "patients": len(np.unique(patient_RA[here_RA])), **said}
    return {"windows": len(windows), "table": table}


def find_masks(config, workdir: str | None):
    """Return the configuration, its segments as long as what the encoder sees, and the mask generator's parameters.

    Those of the newest checkpoint of `workdir`, where that is given; else `config`, the recipe's, and None. Raises
    UserError for both or none of the two, another objective, and a run that has learnt no masks.
    """
    if (config is None) == (workdir is None):
        raise UserError(Fault("--workdir", workdir, "name a run, whose checkpoint has its configuration, or --config"))
    params, named, value = {}, "--config", "its recipe"
    if workdir is not None:
        from jaxbio.training.checkpoint import restore_items

        _, items, meta = restore_items(Path(workdir), ("params",))
        config, params, named, value = changes.from_plain(meta.config), items["params"], "--workdir", workdir
    if config.objective.name != "adversarial_masking":
        remedy = f"objective.name = {config.objective.name}: masks are of SIGMA-PPG's second stage"
        raise UserError(Fault(named, value, remedy))
    if workdir is not None and config.objective.masking != "adversarial":
        remedy = (
            f"objective.masking = {config.objective.masking}: this run has learnt no masks; name an adversarial one"
        )
        raise UserError(Fault(named, value, remedy))
    seen_s = config.data.segment_s if config.data.crop_s is None else config.data.crop_s
    fields.change(config, {"data.segment_s": seen_s, "data.crop_s": None, "data.crops": 1})
    return config, params.get("mask_generator")


def join_segments(files: Sequence[Path], config, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return windows (R, T), each patch's rhythm (R, A), -1 beside a join, and whose each window is (R,)."""
    from jaxbio.signals.segments import resample_segments

    rate_hz, patch = config.data.rate_hz, config.model.patch
    windows, rhythms, patients = [], [], []
    for file in files:
        with np.load(file) as stored:
            ppg_NT, rhythm_N, segment_s = stored["ppg"], stored["rhythm"], stored["ppg"].shape[1] / stored["rate_hz"]
        ppg_NT = resample_segments(
            ppg_NT.astype(np.float32), float(len(ppg_NT[0]) / segment_s), round(segment_s * rate_hz)
        )
        each, a_segment = round(config.data.segment_s / segment_s), ppg_NT.shape[1] // patch
        order_N = rng.permutation(len(ppg_NT))
        for first in range(0, len(order_N) - each + 1, each):
            chosen = order_N[first : first + each]
            rhythm_A = np.repeat(rhythm_N[chosen].astype(int), a_segment).reshape(each, a_segment)
            rhythm_A[:, [0, -1]] = -1
            windows.append(ppg_NT[chosen].ravel())
            rhythms.append(rhythm_A.ravel())
            patients.append(file.stem)
    return np.stack(windows), np.stack(rhythms), np.array(patients)


def masks_of(windows_RT: np.ndarray, config, generator_params, seed: int) -> dict[str, np.ndarray]:
    """Return scores of the prior (R, A) and the chance with which each way of masking chooses a patch; masks are learnt
    where there are parameters of a generator.
    """
    import jax
    import jax.numpy as jnp

    from jaxbio.models.sigma import MaskGenerator
    from jaxbio.objectives import patch_masks
    from jaxbio.transforms import patches
    from jaxbio.transforms.prepare_input import Input, prepare_physical

    own, patch = config.objective, config.model.patch
    x_RCT = jax.jit(lambda x: prepare_physical(x, Input.of(config)))(windows_RT[:, None])
    patch_RAT = patches.cut_patches(x_RCT[:, 0], patch)
    amplitude_RA, skewness_RA = patches.amplitude_stability(patch_RAT), patches.skewness_score(patch_RAT)
    prior_RA = own.amplitude_share * amplitude_RA + (1 - own.amplitude_share) * skewness_RA
    logits = {"prior": patch_masks.prior_logits(prior_RA)}
    if generator_params is not None:
        generator = MaskGenerator(own.mask_width, own.mask_layers, own.mask_heads, patch, config.model.tokens)
        learnt_RA = jax.jit(generator.apply)({"params": generator_params}, x_RCT)
        logits |= {
            "learnt": learnt_RA,
            "learnt and prior": learnt_RA + own.prior_weight * patch_masks.z_score(prior_RA),
        }
    chosen = int(prior_RA.shape[1] * own.mask_ratio)

    @jax.jit
    def chance(logit_RA, key):
        def one(key):
            uniform_RA = jax.random.uniform(key, logit_RA.shape)
            order_RA = patch_masks.choose_by_logits(logit_RA, uniform_RA)
            return patch_masks.as_mask(order_RA[:, :chosen], logit_RA.shape[1])

        return jnp.mean(jax.lax.map(one, jax.random.split(key, DRAWS)), axis=0)

    scores = {"amplitude score": amplitude_RA, "skewness score": skewness_RA, "prior score": prior_RA}
    chances = {f"chosen by {name}": chance(logit_RA, jax.random.key(seed)) for name, logit_RA in logits.items()}
    return {name: np.asarray(value) for name, value in (scores | chances).items()}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
