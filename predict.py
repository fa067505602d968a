"""Draw the buildings of orthophotos: `python predict.py --help`."""

from bdloss.cli.predict import predict

if __name__ == "__main__":
    predict()
