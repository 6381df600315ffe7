"""The corpora of an experiment: prepared where needed, found by name."""

import importlib.util
import inspect
import sys
from functools import partial
from pathlib import Path

from speechbrain.utils.distributed import run_on_main

from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.spelling import find_spelling

HERE = Path(__file__).parent


def prepare_manifests(
    corpora,
    data_root,
    corpus_folders,
    manifest_folder,
    skip_prep=False,
    corpus_options=None,
):
    """Run the corpora's preparation scripts and say where the manifests are.

    Arguments
    ---------
    corpora : str or list of str
        Names, each that of a script ``<name>_prepare.py``: beside this file,
        in the folder where Python was started, or where the corpus's option
        ``script`` says. ``emobox_<corpus>`` is one of EmoBox's, with the
        options of ``emobox``.
    data_root : str
        The folder that holds the corpora.
    corpus_folders : dict
        Corpus to its folder, under ``data_root`` or absolute.
    manifest_folder : str
        Where the manifests are written.
    skip_prep : bool
        Take the manifests as they are.
    corpus_options : dict, optional
        Corpus to options of its script, e.g. ``{"iemocap": {"test_session":
        1}}``. They may name a script, so take them from one's own experiment
        only, never from a recogniser that somebody else gave.

    Returns
    -------
    dict
        Manifest path to the corpus's folder.

    Raises
    ------
    InputError
        No such folder, a corpus that has neither script nor manifest, or an
        option that its script does not have.
    """
    if not Path(data_root).is_dir():
        raise InputError(
            f"the data root {data_root} is not a folder; --data_root takes "
            "the one that holds the corpora"
        )
    manifests = {}
    for name in [corpora] if isinstance(corpora, str) else corpora or []:
        folder = find_spelling(Path(data_root) / corpus_folders.get(name, name))
        name, options = _options(name, corpus_options or {})
        # One's own recordings may have a name of their own
        manifest = Path(manifest_folder) / f"{options.get('name', name)}.csv"
        if not skip_prep:
            if not folder.is_dir():
                raise InputError(
                    f"{name}: there is no folder {folder}; --corpus_folders "
                    f'"{{{name}: ...}}" says where it is, --corpora which '
                    "corpora to take"
                )
            prepare = _preparation(name, options.pop("script", None))
            _check_options(name, prepare, options)
            run_on_main(
                prepare,
                kwargs={
                    "data_folder": str(folder),
                    "save_folder": str(manifest_folder),
                    **options,
                },
            )
        manifests[str(manifest)] = str(folder)
    return manifests


def read_corpora(corpora, settings, own_columns=False):
    """The utterances of corpora, prepared first where that is needed."""
    return read_manifests(
        prepare_manifests(
            corpora,
            settings["data_root"],
            settings["corpus_folders"],
            settings["manifest_folder"],
            settings["skip_prep"],
            settings["corpus_options"],
        ),
        own_columns,
    )


def read_tables(settings):
    """A stage's training and validation sets; None where ``valid_split`` is null."""
    table = read_corpora(settings["corpora"], settings, own_columns=True)
    labels = candidate_labels(settings["model"]["label_words"])
    select = partial(
        select_utterances, languages=settings["languages"], labels=labels
    )
    valid_split = settings["valid_split"]
    return [
        select(table, settings["train_split"]),
        None if valid_split is None else select(table, valid_split),
    ]


def _options(name, corpus_options):
    """A corpus's own name, and the options of its script."""
    options = dict(corpus_options.get(name) or {})
    if name.startswith("emobox_"):
        shared = corpus_options.get("emobox") or {}
        corpus = name.removeprefix("emobox_")
        return name, {**shared, "corpus": corpus, **options}
    if name == "emobox" and "corpus" in options:
        return f"emobox_{options['corpus']}", options
    return name, options


def _preparation(name, script):
    """The function that prepares a corpus."""
    if name.startswith("emobox_"):
        name = "emobox"
    file = f"{name}_prepare.py"
    places = (
        [Path(script).expanduser()] if script else [HERE / file, Path(file)]
    )
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = sorted(
            path.stem.removesuffix("_prepare")
            for path in HERE.glob("*_prepare.py")
        )
        raise InputError(
            f"no preparation script for {name}: no {places[-1].absolute()}; "
            f"there are scripts for {', '.join(known)}; for a manifest of your "
            "own, put it into manifest_folder and set skip_prep"
        )
    prepare = getattr(_load(path.absolute()), f"prepare_{name}", None)
    if prepare is None:
        raise InputError(f"{path}: has no function prepare_{name}")
    if "data_folder" not in inspect.signature(prepare).parameters:
        raise InputError(
            f"{path.name} makes its corpus and reads none: run it by itself, "
            "then give its folder as manifest_folder and set skip_prep"
        )
    return prepare


def _load(path):
    """A script as a module, which finds what lies beside it."""
    if path.parent != HERE.absolute():
        sys.path.append(str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return importlib.import_module(path.stem)


def _check_options(name, prepare, options):
    """Refuse options that a script does not have, and ask for those it needs."""
    known = {
        option: parameter.default is inspect.Parameter.empty
        for option, parameter in inspect.signature(prepare).parameters.items()
        if option not in ("data_folder", "save_folder")
    }
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"corpus_options: {name} has no option {', '.join(unknown)}; it "
            f"has {', '.join(known)}"
        )
    missing = [o for o, needed in known.items() if needed and o not in options]
    if missing:
        raise InputError(
            f"corpus_options: {name} needs {', '.join(missing)}, for example "
            f'"{{{name}: {{{missing[0]}: ...}}}}"'
        )
