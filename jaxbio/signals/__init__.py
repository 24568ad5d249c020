"""What a waveform is worth: resampling, artefacts, beats, quality, and synthetic signals. NumPy and SciPy only.

jaxbio.signals.score(ppg=x, ecg=y, rate_hz=125)["quality_waveform"]
"""

from jaxbio.signals.scoring import score

__all__ = ["score"]
