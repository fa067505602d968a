"""The group of commands, in the order in which an orthophoto meets them."""

import click

from bdloss.cli.calibrate import calibrate
from bdloss.cli.command import Group
from bdloss.cli.data import data
from bdloss.cli.evaluate import figure, score, theta
from bdloss.cli.export import export
from bdloss.cli.predict import merge, predict
from bdloss.cli.train import train


@click.group(cls=Group)
@click.version_option(package_name="bdloss")
def main() -> None:
    """Sharp building edges from orthophotos."""


for command in (
    *(data, theta, train, calibrate, predict, merge),
    *(score, figure, export),
):
    main.add_command(command)
