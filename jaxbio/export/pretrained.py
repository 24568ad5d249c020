"""A pretrained encoder in use: raw signals in, one vector a segment out.

    model = jaxbio.load_pretrained("runs/quickstart/export")
    vector_BD = model.embed(ppg=ppg, ecg=ecg, rate_hz=125)

It knows no model family: what the encoder wants stands in the export's card.
"""

import copy
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import kind_of
from jaxbio.data.plausibility import doubt_size
from jaxbio.data.quantise import quantise
from jaxbio.export import folder as folders
from jaxbio.export import segmenting, stablehlo
from jaxbio.export.card import EXAMPLE, Card
from jaxbio.export.detector import Detector, Prediction, read_detector
from jaxbio.signals import score
from jaxbio.signals.features import append_features
from jaxbio.signals.limb_leads import doubt_leads, tell_doubts
from jaxbio.signals.stillness import find_noise
from jaxbio.transforms.prepare_input import join_crops, prepare_crops, prepare_physical

log = logging.getLogger(__name__)

_LARGEST_BATCH = 64
# Largest difference from the example, as a share of its largest number: float32 products in full on any platform.
_EXAMPLE_TOLERANCE = 1e-4
_MOST_STILL = 0.5  # of a segment: what stands still for longer is no signal to decide upon
# Noise is none either, unless its channel's score finds beats: of white noise at 32 Hz it is at most 0.27, at the rates
# of ECGs 0, and of a clean signal that is sampled too sparsely more.
_LEAST_READ = 0.3


def load_pretrained(folder: epath.PathLike, *, check: bool = True) -> "Pretrained":
    """Return the encoder of an export folder, compared with its own example unless `check` is False.

    Raises UserError for a folder that is no whole export, of a newer schema, of an unknown family, or whose encoder
    does not give the example's output here.
    """
    card, module, variables = folders.read_export(folder)
    model = Pretrained(card, module, variables, read_detector(folder, card))
    if check:
        model.check(folder)
    return model


class Embedded(NamedTuple):
    """One vector a segment, (B, width) float32, which of the card's channels it had, bool (B, C): those that were given
    and do not rest throughout the segment, and what is doubtful, in words: leads that seem to be swapped, or, where
    their size matters, not in mV.
    """

    vector_BD: np.ndarray
    present_BC: np.ndarray
    doubts: tuple[str, ...] = ()


class Answered(NamedTuple):
    """What a detector's network says of each segment, (B, K) float32, which of the card's channels hold a signal, bool
    (B, C), and the segments' scores, float64 (B,), 0 to 1.
    """

    answer_BK: np.ndarray
    present_BC: np.ndarray
    quality_B: np.ndarray


class Pretrained:
    """An encoder with its weights: `embed` takes raw signals, `encode` what `prepare` makes of segments.

    Where the export is a detector, `predict` takes raw signals too.
    """

    def __init__(self, card: Card, module: nn.Module, variables: Mapping[str, Any], detector: Detector | None = None):
        self.card, self.detector = card, detector
        self.variables = jax.tree.map(jnp.asarray, dict(variables))
        self._encode = jax.jit(stablehlo.make_encode(module))
        self._prepare_stored = jax.jit(functools.partial(prepare_crops, inputs=card.inputs))
        self._prepare_physical = jax.jit(functools.partial(prepare_physical, inputs=card.inputs))

    def with_weights(self, variables: Mapping[str, Any]) -> "Pretrained":
        """Return the same network with other weights, which is no detector; what is compiled for one serves both."""
        other = copy.copy(self)
        other.detector, other.variables = None, jax.tree.map(jnp.asarray, dict(variables))
        return other

    def __repr__(self) -> str:
        card = self.card
        wants = f"{'+'.join(card.channels)} at {card.rate_hz:g} Hz, {card.length / card.rate_hz:g} s"
        return f"Pretrained({card.encoder}, {card.parameters:,} parameters, {wants} -> {card.width})"

    def embed(
        self, *, rate_hz: float | Mapping[str, float] | None = None, window_s: float | None = None, **signals: Any
    ) -> np.ndarray:
        """Return one vector a segment, the mean over its tokens and fixed crops: float32 (segments, width).

        Segments are as long as the encoder was trained on, or `window_s` seconds where that is given and the encoder
        takes it. `signals` are raw arrays by channel role, (samples,) or (recordings, samples), of any length from a
        segment on; what is left after the last whole segment is dropped. Units are those of the training store where
        the card's scaling is `physical` or `joint`, else any. `rate_hz` is theirs, in Hz, one for all or one by role.
        Segments come recording by recording, in time order. A channel that is not given, or rests within four steps of
        its converter throughout a segment, gets what the card says (zeros in the prepared input).

        Leads that seem to be swapped are warned of, and those of an unlikely size where the card's scaling is
        `physical`; both are embedded as they are.

        Raises UserError for an unknown channel, no channel, no rate, a rate that is no signal's, a wrong shape, NaN,
        infinite or masked samples, numbers that float32 cannot carry, recordings of unequal duration, less than a
        segment, and a `window_s` that is no length of this encoder's.
        """
        return self.embed_segments(rate_hz=rate_hz, window_s=window_s, **signals).vector_BD

    def embed_segments(
        self, *, rate_hz: float | Mapping[str, float] | None = None, window_s: float | None = None, **signals: Any
    ) -> Embedded:
        """Return what `embed` does, and of each segment which of the card's channels it had; errors as `embed`."""
        card = self.card
        length = card.length if window_s is None else self._check_window(window_s)
        windows = segmenting.cut_signals(signals, rate_hz, card.channels, length / card.rate_hz)
        moves_BC = np.stack(list(windows.rests.values()), axis=1) < 1
        return self._embed_windows(windows, length, moves_BC)

    def predict(self, *, rate_hz: float | Mapping[str, float] | None = None, **signals: Any) -> Prediction:
        """Return what a detector says of each segment: probabilities, a number or a course; decision; quality.

        `signals` and `rate_hz` are as for `embed`, and so are the segments. A segment none of whose channels holds a
        signal is answered "no signal": each holds one value, or rests within four steps of its converter, for more than
        half of it, or is white noise. So is one that lacks a channel, where the detector was not trained on segments
        that lack channels. Beside others, a channel that holds no signal has no part in the answer: it is zeros, as one
        that is not given. Where a signal moves and no beat can be read in it, there is an answer, of quality 0.

        Raises UserError as `embed` does, for an export that is no detector, for a channel that is not given where the
        detector needs it, and for a network whose answers are no numbers.
        """
        detector, card = self.detector, self.card
        if detector is None:
            remedy = "this export is an encoder; fine-tune it first (configs/finetune.py) and export that run"
            raise UserError(Fault("predict", card.encoder, remedy))
        windows = segmenting.cut_signals(signals, rate_hz, card.channels, card.length / card.rate_hz)
        lacking = [role for role in card.channels if role not in windows.raw]
        if lacking and not detector.may_lack_channels:
            remedy = "this detector was trained with all its channels: give it, or train with augment.drop_channel"
            raise UserError(*(Fault(role, "not given", remedy) for role in lacking))
        answer_BK, present_BC, quality_B = self._answer_windows(windows, card.length)
        answered_B = (np.any if detector.may_lack_channels else np.all)(present_BC, axis=1)
        wrong = int((answered_B & ~np.isfinite(answer_BK).all(axis=1)).sum())
        if wrong:
            remedy = "its weights, or what comes of them, are not finite: export another checkpoint of its run (--step)"
            raise UserError(Fault("predict", f"{wrong} of {len(answer_BK)} answers are NaN", remedy))
        decision_B = detector.decide(answer_BK, answered_B)
        answer_BK = np.where(answered_B[:, None], answer_BK, np.float32(np.nan))
        return Prediction(
            probability_BK=answer_BK if detector.answer == "classes" else None,
            value_B=answer_BK[:, 0] if detector.answer == "numbers" else None,
            waveform_BT=answer_BK if detector.answer == "waveforms" else None,
            decision_B=decision_B,
            quality_B=quality_B,
            present_BC=present_BC,
        )

    def answer_segments(
        self, *, rate_hz: float | Mapping[str, float] | None = None, window_s: float | None = None, **signals: Any
    ) -> Answered:
        """Return what `predict` decides from, of every segment; arguments and errors as `embed`.

        A channel that holds no signal is zeros for the network, as one that is not given.
        """
        card = self.card
        length = card.length if window_s is None else self._check_window(window_s)
        windows = segmenting.cut_signals(signals, rate_hz, card.channels, length / card.rate_hz)
        return self._answer_windows(windows, length)

    def _answer_windows(self, windows: segmenting.Windows, length: int) -> Answered:
        holds_BC, quality_B = _find_signals(windows)
        answer_BK, present_BC, _ = self._embed_windows(windows, length, holds_BC)
        return Answered(answer_BK, present_BC, quality_B)

    def _embed_windows(self, windows: segmenting.Windows, length: int, holds_BC: np.ndarray) -> Embedded:
        """Return the vectors of segments of `length` samples at the card's rate; of the given channels those that
        `holds_BC` does not mark are zeros.
        """
        card, segments = self.card, windows.resample(length)
        present = [place for place, role in enumerate(card.channels) if role in windows.raw]
        segments = np.where(holds_BC[..., None], segments, np.float32(0))
        vectors = []
        for start in range(0, len(segments), _LARGEST_BATCH):
            part_BCT = segments[start : start + _LARGEST_BATCH]
            x_BCT = np.zeros((_next_power_of_two(len(part_BCT)), len(card.channels), length), np.float32)
            x_BCT[: len(part_BCT), present] = part_BCT
            tok_BLD = join_crops(self._encode(self.variables, self.prepare(x_BCT)), card.crops)
            vectors.append(np.asarray(tok_BLD[: len(part_BCT)]).mean(axis=1))
        present_BC = np.zeros((len(segments), len(card.channels)), bool)
        present_BC[:, present] = holds_BC
        given = [card.channels[place] for place in present]
        doubts = tell_doubts(doubt_leads(segments, given, card.rate_hz))
        if card.scaling == "physical":
            leads = [place for place, role in enumerate(given) if kind_of(role) == "ecg"]
            range_BC = np.where(holds_BC[:, leads], np.ptp(segments[:, leads], axis=-1), np.nan)
            doubts += [f"{said}: are they in mV" for said in doubt_size(range_BC)]
        for doubt in doubts:
            log.warning("doubtful: %s?", doubt)
        return Embedded(np.concatenate(vectors), present_BC, tuple(doubts))

    def prepare(self, x_BCT: Any) -> jax.Array:
        """Return what the encoder sees of segments x_BCT in physical units at the model's rate, float32.

        The fixed crops of each segment, one after the other, (segments x crops, channels, samples), as training would
        have seen them: through the store's int16, with the features that the card names. Raises UserError as `encode`
        does.
        """
        inputs = self.card.inputs
        x_BCT = self._check_segments(x_BCT, inputs.channels)
        if inputs.crop_s is not None and x_BCT.shape[2] < inputs.samples:
            remedy = f"expected at least {inputs.samples} samples{self._of_crop()}"
            raise UserError(Fault("x_BCT", f"shape {x_BCT.shape}", remedy))
        x_BCT = append_features(x_BCT, inputs.channels, inputs.rate_hz, inputs.features)
        if not len(x_BCT):
            return jnp.zeros((0, *inputs.shape_of(x_BCT)), jnp.float32)
        return self._prepare_stored(*quantise(x_BCT))

    def encode(self, x_BCT: Any) -> jax.Array:
        """Return tok_BLD float32 of segments x_BCT that are prepared already: any B, 0 too, any T the encoder takes.

        Raises UserError for another number of axes or channels, for a T that is too short, and for what is no finite
        number in float32.
        """
        x_BCT = self._check_segments(x_BCT, (*self.card.channels, *self.card.features))
        if len(x_BCT) and x_BCT.shape[2] >= stablehlo.SHORTEST:
            return self._encode(self.variables, jnp.asarray(x_BCT))
        try:
            one_BLD = jax.eval_shape(self._encode, self.variables, jnp.zeros((1, *x_BCT.shape[1:])))
        except Exception as error:  # each encoder fails in its own way where a kernel finds no samples
            remedy = f"too short for this encoder ({error}); {stablehlo.SHORTEST} samples are always enough"
            raise UserError(Fault("x_BCT", f"shape {x_BCT.shape}", remedy)) from error
        if not len(x_BCT):
            return jnp.zeros((0, *one_BLD.shape[1:]), jnp.float32)
        return self._encode(self.variables, jnp.asarray(x_BCT))

    def check(self, folder: epath.PathLike) -> float:
        """Return the largest difference from the example's output, as a share of its largest number.

        Raises UserError where it is above 1e-4.
        """
        x_BCT, tok_BLD = folders.read_example(folder, self.card)
        prepared_BCT = x_BCT if self.card.schema == 1 else self._prepare_physical(x_BCT)
        found_BLD = np.asarray(join_crops(self.encode(prepared_BCT), self.card.crops))
        where = str(epath.Path(folder) / EXAMPLE)
        if found_BLD.shape != tok_BLD.shape:
            raise UserError(
                Fault(where, f"tokens {tok_BLD.shape}", f"this encoder gives {found_BLD.shape}; export again")
            )
        largest = max(np.abs(tok_BLD).max(), np.finfo(np.float32).tiny)
        difference = float(np.abs(found_BLD - tok_BLD).max() / largest)
        if not difference <= _EXAMPLE_TOLERANCE:
            remedy = f"differs from this encoder's output by {difference:.1e} of its largest number; export again"
            raise UserError(Fault(where, "another output", remedy))
        return difference

    def _check_window(self, window_s: float) -> int:
        """Return the samples of a window of so many seconds, or raise UserError where it is none."""
        card, least_s = self.card, self.card.crop_s or 1 / self.card.rate_hz
        is_number = isinstance(window_s, (int, float)) and not isinstance(window_s, bool) and math.isfinite(window_s)
        if not is_number or window_s < least_s:
            raise UserError(Fault("window_s", window_s, f"seconds, at least {least_s:g}{self._of_crop()}"))
        samples = window_s * card.rate_hz
        if abs(samples - round(samples)) > 1e-6:
            near = f"{math.floor(samples) / card.rate_hz:g} or {math.ceil(samples) / card.rate_hz:g}"
            raise UserError(Fault("window_s", window_s, f"whole samples at {card.rate_hz:g} Hz: {near}"))
        return round(samples)

    def _of_crop(self) -> str:
        """Return the words for what a window is at least, where the encoder was trained on crops."""
        return (
            ""
            if self.card.crop_s is None
            else f", the crop that it was trained on (data.crop_s = {self.card.crop_s:g})"
        )

    def _check_segments(self, x_BCT: Any, channels: Sequence[str]) -> np.ndarray:
        """Return x_BCT as float32, or raise UserError for what are no segments of `channels`."""
        x_BCT = np.asarray(x_BCT)
        if x_BCT.dtype.kind not in "fiub":
            raise UserError(Fault("x_BCT", f"type {x_BCT.dtype}", "expected real numbers"))
        if x_BCT.ndim != 3 or x_BCT.shape[1] != len(channels):
            wanted = f"(segments, {len(channels)}, samples), channels {', '.join(channels)}"
            raise UserError(Fault("x_BCT", f"shape {x_BCT.shape}", f"expected {wanted}"))
        if x_BCT.shape[2] < 1:
            raise UserError(Fault("x_BCT", f"shape {x_BCT.shape}", "expected at least 1 samples"))
        if not np.isfinite(x_BCT).all():
            raise UserError(Fault("x_BCT", "NaN or infinite values", "fill or leave out these segments"))
        with np.errstate(over="ignore"):
            x_BCT = np.asarray(x_BCT, np.float32)
        if not np.isfinite(x_BCT).all():
            raise UserError(Fault("x_BCT", "values beyond those of float32", "scale these segments"))
        return x_BCT


def _find_signals(windows: segmenting.Windows) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the given channels hold a signal, bool (B, C), and the segments' scores (B,)."""
    scores = score(rate_hz=windows.rate_hz, **dict[str, Any](windows.raw))
    holds = []
    for role, x_BN in windows.raw.items():
        still_B = (scores[f"{role}_missing_frac"] > _MOST_STILL) | (windows.rests[role] > _MOST_STILL)
        noise_B = find_noise(x_BN) & (scores[f"{role}_waveform"] < _LEAST_READ)
        holds.append(~(still_B | noise_B))
    return np.stack(holds, axis=1), np.nan_to_num(scores["quality_waveform"])


def _next_power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
