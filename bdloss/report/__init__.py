"""Reports: one HTML file to look at, of a prediction, of scores or of a training.

    cli/predict, cli/evaluate -> prediction -> tiles, shapes -> page
    training/run -> training -> page

Everything is inside the file: it needs no network and no server. `page` is what all of
them share, and what keeps a name in a file from being run as a script.
"""
