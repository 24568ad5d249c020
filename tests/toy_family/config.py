"""The toy family: one dense layer, a codebook that follows its tokens, and a frozen network beside it."""

from jaxbio.config.families.family import Family, Model, Training
from jaxbio.config.field import machine, science

FAMILY = Family(
    models={
        "toy": Model("jaxbio.models.toy:ToyEncoder", {"model.width": science(16, "width of a token", low=1)}),
    },
    objectives={
        "toy_codes": Training(
            "jaxbio.objectives.toy:toy_codes",
            {
                "objective.codes": science(8, "codes in the codebook", low=2),
                "objective.momentum": science(0.9, "momentum of codes and of their use", low=0.0, high=1.0),
                "objective.tokenizer": machine(None, "export of the network to learn from", str, optional=True),
            },
            frozen=("tokenizer",),
            metrics={
                "distill": "squared distance from the frozen network's tokens; less is better.",
                "label": "squared error of the label told from the mean token; less is better.",
                "revived_codes": "codes that nobody used, started anew in this step.",
                "code_perplexity": "how many codes are in use, by the entropy of their shares; more is better.",
            },
        ),
    },
)
