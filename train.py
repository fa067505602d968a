"""Train a network: `python train.py --help`."""

from bdloss.cli.train import train

if __name__ == "__main__":
    train()
