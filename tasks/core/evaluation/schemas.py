"""The columns of every Parquet table: name, type, and what the file itself says that they mean."""

from collections.abc import Sequence

import pyarrow as pa

from tasks.core.runtime.parquet import CLASS_NAME, make_schema

PROBABILITY = "prob_"  # what the names of the columns of probabilities begin with


PER_CLASS = make_schema(
    [
        ("class_index", pa.int16(), "the label"),
        ("class", pa.string(), "the label's name"),
        ("support", pa.int32(), "test images of this class"),
        ("correct", pa.int32(), "how many of them were predicted right"),
        ("accuracy", pa.float64(), "correct / support, the class's recall; null without test images"),
        ("accuracy_low", pa.float64(), "lower end of the accuracy's 95% interval (Wilson)"),
        ("accuracy_high", pa.float64(), "upper end of the accuracy's 95% interval (Wilson)"),
        ("precision", pa.float64(), "share of the predictions of this class that were right; null if there were none"),
        ("f1", pa.float64(), "harmonic mean of recall and precision; null where neither is defined"),
        ("confused_with", pa.string(), "the class it was most often taken for; null without mistakes"),
        ("confused_count", pa.int32(), "how often that was"),
        ("precision_low", pa.float64(), "lower end of the precision's 95% interval (Wilson)"),
        ("precision_high", pa.float64(), "upper end of the precision's 95% interval (Wilson)"),
        ("f1_low", pa.float64(), "lower end of the F1's 95% interval (Wilson's of the Jaccard index, carried over)"),
        ("f1_high", pa.float64(), "upper end of the F1's 95% interval (Wilson's of the Jaccard index, carried over)"),
    ]
)

CALIBRATION = make_schema(
    [
        ("low", pa.float64(), "confidences in this bin are greater"),
        ("high", pa.float64(), "confidences in this bin are at most this"),
        ("images", pa.int32(), "test images whose confidence is in this bin"),
        ("confidence", pa.float64(), "their mean confidence; null without images"),
        ("accuracy", pa.float64(), "the share of them that was predicted right; null without images"),
        ("accuracy_low", pa.float64(), "lower end of the accuracy's 95% interval (Wilson)"),
        ("accuracy_high", pa.float64(), "upper end of the accuracy's 95% interval (Wilson)"),
    ]
)


def predictions_columns(classes: Sequence[str]) -> pa.Schema:
    return make_schema(
        [
            ("index", pa.int32(), "the image's place among the test images"),
            ("label", CLASS_NAME, "name of the image's class"),
            ("predicted", CLASS_NAME, "name of the most probable class"),
            ("correct", pa.bool_(), "whether the two are equal"),
            ("confidence", pa.float32(), "the largest probability"),
            *((f"{PROBABILITY}{name}", pa.float32(), f"probability of {name}") for name in classes),
        ]
    )
