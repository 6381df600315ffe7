"""The corpora of an experiment: prepared where needed, found by name."""

import importlib
import inspect
from functools import partial
from pathlib import Path

from speechbrain.utils.distributed import run_on_main

from speechbrain_mser.dataio.batching import select_utterances
from speechbrain_mser.dataio.manifest import read_manifests
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
        Names, each that of a script ``<name>_prepare.py`` beside this file.
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
        1}}``.

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
        options = dict((corpus_options or {}).get(name) or {})
        # One's own recordings may have a name of their own
        manifest = Path(manifest_folder) / f"{options.get('name', name)}.csv"
        if not skip_prep:
            if not folder.is_dir():
                raise InputError(
                    f"{name}: there is no folder {folder}; --corpus_folders "
                    f'"{{{name}: ...}}" says where it is, --corpora which '
                    "corpora to take"
                )
            prepare = _script(name)
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


def read_corpora(corpora, settings):
    """The utterances of corpora, which are prepared where needed.

    Arguments
    ---------
    corpora : str or list of str
        Names.
    settings : dict
        Where corpora and manifests are, as every hyperparameter file of this
        recipe says it.

    Returns
    -------
    pandas.DataFrame
        As `read_manifests` returns.
    """
    return read_manifests(
        prepare_manifests(
            corpora,
            settings["data_root"],
            settings["corpus_folders"],
            settings["manifest_folder"],
            settings["skip_prep"],
            settings["corpus_options"],
        )
    )


def read_tables(settings):
    """The utterances of a stage's training and validation sets.

    Arguments
    ---------
    settings : dict
        Of stage1.yaml or stage2.yaml, as `read_settings` returns them.

    Returns
    -------
    list of pandas.DataFrame
        Training, validation; None where ``valid_split`` is null.
    """
    table = read_corpora(settings["corpora"], settings)
    labels = candidate_labels(settings["model"]["label_words"])
    select = partial(
        select_utterances, languages=settings["languages"], labels=labels
    )
    valid_split = settings["valid_split"]
    return [
        select(table, settings["train_split"]),
        None if valid_split is None else select(table, valid_split),
    ]


def _script(name):
    """The function that prepares a corpus."""
    if not (HERE / f"{name}_prepare.py").is_file():
        known = sorted(
            path.stem.removesuffix("_prepare")
            for path in HERE.glob("*_prepare.py")
        )
        raise InputError(
            f"no preparation script for {name}; there are scripts for "
            f"{', '.join(known)}; for a manifest of your own, put it into "
            "manifest_folder and pass --skip_prep True"
        )
    module = importlib.import_module(f"{name}_prepare")
    prepare = getattr(module, f"prepare_{name}")
    if "data_folder" not in inspect.signature(prepare).parameters:
        raise InputError(
            f"{name}_prepare.py makes its corpus and reads none: run it by "
            "itself, then pass its folder as manifest_folder and --skip_prep "
            "True"
        )
    return prepare


def _check_options(name, prepare, options):
    """Refuse options that a corpus's script does not have."""
    known = [
        option
        for option in inspect.signature(prepare).parameters
        if option not in ("data_folder", "save_folder")
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"corpus_options: {name} has no option {', '.join(unknown)}; it "
            f"has {', '.join(known)}"
        )
