"""``python -m smpcore.forensics``: trains the networks of the bank again, or judges networks that are held out."""

import argparse
from pathlib import Path

import torch

from smpcore.forensics.classifier import auc, averaged, cross_validate, make_bank
from smpcore.forensics.report import DATA, bank, write
from smpcore.forensics.training import recipes


def check(bank: list[dict]) -> str:
    """How well held-out networks are judged, without noise: from single curves, and from the mean over four."""
    lines = ["area under the ROC curve ± standard error over networks, 2,001 samples without noise"]
    for head in ("kinked", "max pooling"):
        for known_path in (True, False):
            judged = cross_validate(bank, head, known_path=known_path)
            clean = judged.where(judged.condition == "clean")
            (one, error), (four, error_of_four) = auc(clean), auc(averaged(clean))
            lines.append(f"{head}, networks{'' if known_path else ' and paths'} held out: {one:.3f} ± {error:.3f}, "
                         f"four curves together {four:.3f} ± {error_of_four:.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m smpcore.forensics", description="Make or check the classifier.")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", action="store_true", help="train the networks of the bank, write it, and check it")
    task.add_argument("--check", action="store_true", help="judge networks that are held out, with the bank as it is")
    parser.add_argument("--seeds", type=int, default=3, help="40 networks for each; 3 are shipped")
    parser.add_argument("--output", type=Path, default=DATA, help="where the classifier and its bank go")
    chosen = parser.parse_args()
    if chosen.train:
        torch.set_num_threads(1)
        found = make_bank(recipes(chosen.seeds))
        write(found, chosen.output)
    print(check(found if chosen.train else bank()))


if __name__ == "__main__":
    main()
