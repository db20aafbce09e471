"""The tutorial's recipe: its own script beside ours, in turn, on the same machine and the same images.

python benchmarks/training_speed.py --source PATH/cifar-10-python.tar.gz --pairs 3
"""

import argparse
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, help="an archive in the official layout; generated images if unset")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        print(*train_ours(arguments.ours))
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = arguments.source or generated(Path(folder) / "generated.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        compare(archive, Path(folder), arguments.pairs)


def compare(archive: Path, root: Path, pairs: int) -> None:
    print(f"{archive.name}: {pairs} pair(s) of 2 epochs in batches of 4")
    ratios = []
    for _ in range(pairs):
        script_s, script_accuracy = measured([HERE / "tutorial_script.py", root])
        ours_s, ours_accuracy = measured([Path(__file__), "--ours", archive])
        ratios.append(script_s / ours_s)
        print(
            f"tutorial's script {script_s:.1f} s ({script_accuracy:.1%}), ours {ours_s:.1f} s ({ours_accuracy:.1%}): "
            f"{ratios[-1]:.2f} times as fast"
        )
    print(f"median: {statistics.median(ratios):.2f} times as fast")


def measured(command: list[Path]) -> tuple[float, float]:
    """Seconds of training and accuracy: the last line that the command prints."""
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
    seconds, accuracy = done.stdout.splitlines()[-1].split()
    return float(seconds), float(accuracy)


def train_ours(archive: Path) -> tuple[float, float]:
    import torch

    from tasks.core.config import RECIPES, Normalization
    from tasks.core.dataset import load_dataset, normalize_into
    from tasks.core.device import kernels_for
    from tasks.core.evaluation import class_probabilities
    from tasks.core.model import new_network
    from tasks.core.training import train

    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        normalize_into(Path(folder), archive, Normalization())
        dataset = load_dataset(Path(folder))
        network = new_network(len(dataset.classes), seed=1)
        started = time.perf_counter()
        with kernels_for(device, RECIPES["tutorial"].batch_size):
            train(network, dataset, RECIPES["tutorial"], 1, device, print)
        seconds = time.perf_counter() - started
        predicted = class_probabilities(network, dataset, device).argmax(axis=1)
        return seconds, float((predicted == dataset.test_labels).mean())


def generated(path: Path) -> Path:
    from tasks.core.synthetic import write_archive

    write_archive(path)
    return path


if __name__ == "__main__":
    main()
