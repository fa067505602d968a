"""What the documents say is there: names, tests, files, keys and commands."""

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import bdloss
from bdloss.cli import main as cli
from bdloss_tests.archives import write_inria
from bdloss_tests.scenes import write_folder

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
LAST = ("departure, and why", "chosen here")


def rows_of(text):
    """Return the rows of all tables: heading and cells."""
    rows, head = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
        elif not set(line) <= set("|- "):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if head:
                rows.append((head, cells))
            head = head or cells
    return rows


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


PAPER = [
    (head, cells)
    for head, cells in rows_of((ROOT / "docs" / "paper.md").read_text())
    if "where" in head
]


def resolve(name):
    """Find what a cell names: an object of bdloss, a file, or a key in one."""
    if "/" in name:
        file, _, key = name.partition(": ")
        path = ROOT / file
        if not path.is_file():
            raise LookupError(f"no file {file}")
        value = tomllib.loads(path.read_text()) if key else None
        for part in filter(None, key.split(".")):
            try:
                value = value[int(part) if part.isdigit() else part]
            except (KeyError, IndexError) as error:
                raise LookupError(f"no key {key} in {file}") from error
        return
    parts = ["bdloss", *name.split(".")]
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                raise LookupError(f"no {name}")
            found = getattr(found, part)
        return


def find_test(name):
    file, _, function = name.partition("::")
    path = ROOT / "bdloss_tests" / file
    text = path.read_text() if path.is_file() else ""
    if not re.search(rf"^def {function}\(", text, re.M):
        raise LookupError(f"no test {name}")


def test_table_of_the_paper_is_whole():
    assert len(PAPER) > 60
    for head, cells in PAPER:
        assert len(cells) == len(head) == 5, cells
        assert all(cells), cells
        assert names_in(cells[2]), f"nothing is named in {cells}"
        assert names_in(cells[3]), f"no test is named in {cells}"
        quoted = re.match(r'"(.+?)"', cells[0])
        if quoted:
            assert len(quoted[1].split()) <= 10, cells[0]


@pytest.mark.parametrize(
    "name", sorted({name for _, cells in PAPER for name in names_in(cells[2])})
)
def test_what_the_table_of_the_paper_names_is_there(name):
    resolve(name)


@pytest.mark.parametrize(
    "name", sorted({name for _, cells in PAPER for name in names_in(cells[3])})
)
def test_tests_that_the_table_of_the_paper_names_are_there(name):
    find_test(name)


@pytest.mark.parametrize(
    "name",
    [
        "losses.sharp_loss",
        "losses.boundary.extract_edges",
        "configs/none.toml",
        "configs/inria.toml: stage.4.epochs",
        "configs/inria.toml: stages",
    ],
)
def test_a_name_that_is_not_there_is_noticed(name):
    with pytest.raises(LookupError):
        resolve(name)
    with pytest.raises(LookupError):
        find_test("losses/test_boundary.py::test_none")


def blocks_of(text):
    """Return fenced and indented blocks: the language, if it is said, and lines."""
    blocks, fenced, indented = [], None, []
    for line in [*text.splitlines(), "end"]:
        fence = re.match(r" *```(\w*)", line)
        if fence:
            if fenced is None:
                fenced = (fence[1], [])
            else:
                blocks.append(fenced)
                fenced = None
        elif fenced is not None:
            fenced[1].append(line)
        elif line.startswith("    ") or (indented and not line.strip()):
            indented.append(line[4:])
        elif indented:
            blocks.append(("", indented))
            indented = []
    return blocks


def is_python(language, lines):
    """Say whether a block is Python that no test runs."""
    text = "\n".join(lines)
    if ">>>" in text:
        return False
    if language:
        return language in ("python", "py", "pycon")
    try:
        return bool(ast.parse(text).body)
    except SyntaxError:
        return False


@DOCUMENT
def test_every_python_block_is_run(path):
    not_run = [
        lines
        for language, lines in blocks_of(path.read_text())
        if is_python(language, lines)
    ]
    assert not not_run


def test_python_that_no_test_runs_is_noticed():
    fenced = "text\n```python\nmodel.compile(loss)\n```\n"
    indented = "text\n\n    from bdloss import losses\n\n    loss = losses.get('iou')\n"
    for text in (fenced, indented):
        assert any(is_python(*block) for block in blocks_of(text))
    for text in (
        "```python\n>>> 1\n1\n\n```",
        "    python train.py --out runs/a\n",
        "    make demo     # train\n",
        "    scene -> windows -> patches\n",
    ):
        assert not any(is_python(*block) for block in blocks_of(text))


def commands_in(text):
    """Return the words of every bdloss command of a document's blocks."""
    found = []
    for language, lines in blocks_of(text):
        if language in ("python", "toml"):
            continue
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*|srun|export", words[0]):
                words = words[1:]
            if words and words[0].endswith("python") and len(words) > 1:
                script = {"train.py": "train", "predict.py": "predict"}
                if words[1] in script:
                    found.append([script[words[1]], *words[2:]])
            elif words and words[0] == "bdloss":
                found.append(words[1:])
    return found


COMMANDS = [
    pytest.param(words, id=f"{path.name}: {' '.join(words)}"[:70])
    for path in DOCUMENTS
    for words in commands_in(path.read_text())
]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder in which all files that the documents speak of exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *_: Path(value))
    return tmp_path


def test_documents_show_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_of_the_documents_are_understood(words, places):
    command = cli.main
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        command = command.get_command(context, name)
        assert command, f"no command {name}"
    if "--help" in words:
        return
    command.make_context("bdloss", [re.sub(r"\$\w+", "1", word) for word in words])


def test_cheap_commands_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inria(tmp_path)
    write_folder(tmp_path / "my_town")
    readme = commands_in((ROOT / "README.md").read_text())
    cheap = [words for words in readme if "check" in words or "--help" in words]
    assert len(cheap) >= 2
    for words in cheap:
        done = CliRunner().invoke(cli.main, words)
        assert done.exit_code in (0, 1), done.output
        assert "Error" not in done.output
        assert done.output


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {bdloss.__version__}\n" in text
