"""The columns of the evaluation tables: name, type, and the description in the file's metadata."""

from collections.abc import Sequence

import pyarrow as pa

from tasks.core.runtime.parquet import CLASS_NAME, make_schema

PROBABILITY_PREFIX = "prob_"
F1_LIMIT = "limit of the 95% interval of the F1 score (from Wilson's for the Jaccard index)"

PER_CLASS = make_schema(
    [
        ("class_index", pa.int16(), "the label"),
        ("class", pa.string(), "the name of the class"),
        ("support", pa.int32(), "number of test images of this class"),
        ("correct", pa.int32(), "number of correct predictions among them"),
        ("accuracy", pa.float64(), "correct / support, the recall of the class; null without test images"),
        ("accuracy_low", pa.float64(), "lower limit of the 95% interval of the accuracy (Wilson)"),
        ("accuracy_high", pa.float64(), "upper limit of the 95% interval of the accuracy (Wilson)"),
        ("precision", pa.float64(), "correct / predictions of this class; null without predictions"),
        ("f1", pa.float64(), "harmonic mean of recall and precision; null if both are null"),
        ("confused_with", pa.string(), "the class that is predicted most often instead; null without mistakes"),
        ("confused_count", pa.int32(), "number of these mistakes"),
        ("precision_low", pa.float64(), "lower limit of the 95% interval of the precision (Wilson)"),
        ("precision_high", pa.float64(), "upper limit of the 95% interval of the precision (Wilson)"),
        ("f1_low", pa.float64(), f"lower {F1_LIMIT}"),
        ("f1_high", pa.float64(), f"upper {F1_LIMIT}"),
    ]
)

CALIBRATION = make_schema(
    [
        ("low", pa.float64(), "lower limit of the bin, exclusive"),
        ("high", pa.float64(), "upper limit of the bin, inclusive"),
        ("images", pa.int32(), "number of test images in the bin"),
        ("confidence", pa.float64(), "their mean confidence; null without images"),
        ("accuracy", pa.float64(), "share of correct predictions among them; null without images"),
        ("accuracy_low", pa.float64(), "lower limit of the 95% interval of the accuracy (Wilson)"),
        ("accuracy_high", pa.float64(), "upper limit of the 95% interval of the accuracy (Wilson)"),
    ]
)


def predictions_columns(classes: Sequence[str]) -> pa.Schema:
    return make_schema(
        [
            ("index", pa.int32(), "position of the image among the test images"),
            ("label", CLASS_NAME, "the class of the image"),
            ("predicted", CLASS_NAME, "the most probable class"),
            ("correct", pa.bool_(), "whether label and predicted are equal"),
            ("confidence", pa.float32(), "the highest probability"),
            *((f"{PROBABILITY_PREFIX}{name}", pa.float32(), f"probability of {name}") for name in classes),
        ]
    )
