"""The columns of every Parquet table: name, type, and what the file itself says that they mean."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

DESCRIPTION = b"description"
CLASS_NAME = pa.dictionary(pa.int16(), pa.string())
PROBABILITY = "prob_"  # what the names of the columns of probabilities begin with


def described(columns: Iterable[tuple[str, pa.DataType, str]]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, metadata={DESCRIPTION: meaning.encode()}) for name, kind, meaning in columns]
    )


PER_CLASS = described(
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

CALIBRATION = described(
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

DUPLICATES = described(
    [
        *(
            column
            for which in ("first", "second")
            for column in (
                (f"{which}_split", pa.dictionary(pa.int8(), pa.string()), f"where the {which} image is: train or test"),
                (f"{which}_index", pa.int32(), f"the {which} image's place there"),
                (f"{which}_label", CLASS_NAME, f"name of the {which} image's class"),
            )
        ),
        ("labels_differ", pa.bool_(), "whether the two are labelled otherwise"),
        ("exact", pa.bool_(), "whether all their bytes are equal"),
        ("mirrored", pa.bool_(), "whether one is like the other's mirror image"),
        (
            "correlation",
            pa.float64(),
            "Pearson's, over all pixels and channels of both at 16×16, each channel less its mean",
        ),
        ("structure", pa.float64(), "SSIM's structure term in grey, mean over sixteen blocks of them"),
    ]
)

TRAINING = described(
    [
        ("step", pa.int32(), "training steps so far"),
        ("epoch", pa.int32(), "the epoch that the step is of, from 1 on"),
        ("running_loss", pa.float64(), "mean cross-entropy since the row before"),
        ("learning_rate", pa.float64(), "the learning rate of the step"),
        ("running_accuracy", pa.float64(), "share of training images predicted right since the row before"),
        ("validation_loss", pa.float64(), "cross-entropy on the images held out; only at an epoch's end"),
        ("validation_accuracy", pa.float64(), "share of the images held out that is predicted right; likewise"),
    ]
)


def predictions_columns(classes: Sequence[str]) -> pa.Schema:
    return described(
        [
            ("index", pa.int32(), "the image's place among the test images"),
            ("label", CLASS_NAME, "name of the image's class"),
            ("predicted", CLASS_NAME, "name of the most probable class"),
            ("correct", pa.bool_(), "whether the two are equal"),
            ("confidence", pa.float32(), "the largest probability"),
            *((f"{PROBABILITY}{name}", pa.float32(), f"probability of {name}") for name in classes),
        ]
    )
