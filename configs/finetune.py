"""Fine-tune an export on a label of a store, or train the network of another recipe from scratch to compare with.

python launch/run.py --config configs/finetune.py:vt_alarm --config.train.init_from=EXPORT --config.data.store=STORE
python launch/run.py --config configs/finetune.py:vt_alarm,lora ...    # adapters, in the place of all weights
python launch/run.py --config configs/finetune.py:vt_alarm,qualityfm_base --config.data.store=STORE    # from scratch
python launch/run.py --config configs/finetune.py:smoke    # two steps on a laptop, from scratch

Family, fields and input of the encoder are the export's, or those of the recipe named among the presets. Presets are by
what is trained (head, lora, layerwise), by column of the label (vt_alarm, superclass, heart_rate), by the task that it
is of (af, rhythm, signal_quality, affect, activity, monitor_rate, respiratory_rate, spo2, systolic, diastolic), the
channel that is learnt (abp_waveform), by length (five_minutes, in windows of half a minute) and by recipe.
"""

from pathlib import Path

from ml_collections import ConfigDict

from jaxbio.config import adopt, fields, presets
from jaxbio.config.command_line import load_recipe
from jaxbio.config.families import supervised as family


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets, and at most one recipe beside this one."""
    names = argument.split(",")
    recipes = [name for name in names if name and Path(__file__).with_name(f"{name}.py").is_file()]
    config = fields.change(fields.defaults(objective="supervised"), family.RECIPE)
    for recipe in recipes:
        config = adopt.from_recipe(config, load_recipe(str(Path(__file__).with_name(f"{recipe}.py"))))
    rest = ",".join(name for name in names if name not in recipes)
    return presets.apply(config, rest, {**family.PRESETS, "smoke": {**presets.SMOKE, **family.SMOKE}})
