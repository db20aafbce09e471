"""Streaming: evaluating takes the same memory however many the images are."""

import shutil

from bench import Bench
from processes import ask, say
from rows import Row

IMAGES = (10_000, 1_000_000)
MEGABYTE = 1e6


def streaming(bench: Bench) -> Row:
    """One run for each number of images, each in a process of its own."""
    weights, dataset = bench.folder / "new-weights", bench.folder / "streamed"
    ask("ours.py", "new_weights", dataset=bench.dataset, into=weights)
    found = []
    for images in IMAGES:
        say(f"streaming: {images:,} images")
        ask("grown.py", "repeat_test_images", dataset=bench.dataset, images=images, into=dataset)
        found.append(ask("grown.py", "evaluating", dataset=dataset, weights=weights))
        shutil.rmtree(dataset)
    peaks = [one["peak_bytes"] / MEGABYTE for one in found]
    times = ", then ".join(f"{one['predict_s']:.2f} + {one['summarize_s']:.2f} s" for one in found)
    return Row(
        "evaluate {:,} images, then {:,}".format(*IMAGES),
        ours=f"{times}; peak {', then '.join(format(peak, ',.0f') for peak in peaks)} MB",
        figure=f"peak {peaks[1] - peaks[0]:+,.0f} MB for {IMAGES[1] // IMAGES[0]} times the images",
        goal="≤ 300 MB more",
        note="seconds of predicting + of scores with intervals, by the untrained tutorial's network, from mapped "
        "arrays of the test images over and over; peak resident memory of the process, imports included.",
    )
