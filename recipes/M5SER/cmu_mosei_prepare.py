"""CMU-MOSEI: spontaneous English from video blogs, one manifest.

Segments of monologues on YouTube, each judged by three people for six emotions
from 0 (no evidence) to 3 (high): 23,259 segments of 3,293 videos, 49 hours.
The audio is one WAV per video, 16 kHz.

Where: http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset/
Licence: the labels for research; the videos belong to who made them

    CMU_MOSEI_Labels.csd                     labels and times (HDF5)
    Raw/Audio/Full/WAV_16000/<video>.wav
    Raw/Transcript/Segmented/Combined/<video>.txt
                                             video___clip___start___end___text

Several emotions may be present at once. One label is made of them like this:

- the strongest one, if there is one strongest: (happy 0.67, sad 0.33) is happy
- none at all is neutral, which the corpus has no word for. `--all_zero none`
  leaves the emotion empty instead.
- several equally strong (happy 0.67, anger 0.67) have no emotion; the label is
  `happy+anger`, so that a reader may decide otherwise.

The maximum over the columns, as others take it, would call both of the latter
happy, because happy comes first. The splits are the standard ones, by video;
segments of 68 videos are in none of them and are dropped. There are no
speakers in this corpus: the video stands for one.

Usage: python cmu_mosei_prepare.py --data_folder CMU_MOSEI
       --save_folder manifests
"""

import json
import math
import sys
from functools import partial
from pathlib import Path, PurePosixPath

from speechbrain_mser.emotions import ALIASES, canonical
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.files.tables import read_table, read_text
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus
from speechbrain_mser.settings.project_files import MANIFESTS

# The columns of the label file, after sentiment
DIMENSIONS = (
    *("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"),
)
EMOTIONS = DIMENSIONS[1:]
# A few segments are above, because a fourth person judged
STRONGEST = 3.0
# Intensities are means over three or four people
EQUAL = 0.01
# The same moment in the labels and in a transcript, in seconds
SAME_TIME = 0.02
# What a segment may reach beyond its audio and still be whole, in seconds
BEYOND = 0.5

SEGMENTS, VIDEOS = 23259, 3293

# Not through the link beside this file: a checkout may be without links.
# standard_train_fold, standard_valid_fold and standard_test_fold of the
# corpus's own software (cmu_mosei_std_folds.py)
FOLDS = MANIFESTS / "splits/cmu_mosei.csv"

LABELS = "CMU_MOSEI_Labels.csd"
WAVS = "WAV_16000"

CMU_MOSEI = Corpus(
    name="cmu_mosei",
    language="eng",
    script=__file__,
    layout=f"Raw/Audio/Full/{WAVS}|Audio/Full/{WAVS}",
    companions=(
        *("*Videos/*", "*Transcript/*", "*Labels/*", "*COVAREP/*"),
        *("*.csd", "*.txt", "*.csv", "*.pdf"),
    ),
    official_splits=True,
)

# What a segment without any emotion is
ALL_ZERO = ("neutral", "none")


def prepare_cmu_mosei(
    data_folder, save_folder, labels="", all_zero="neutral", decode=False
):
    """Write ``cmu_mosei.csv`` and ``cmu_mosei_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``Raw``.
    save_folder : str or path-like
        Where the manifest goes.
    labels : str or path-like
        ``CMU_MOSEI_Labels.csd``; by default it is looked for in the data
        folder and in the folders there.
    all_zero : str
        What a segment is for which nobody saw any emotion: ``neutral``, or
        ``none`` for no emotion.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        No label file, one that cannot be read, or see `prepare_corpus`.
    """
    if all_zero not in ALL_ZERO:
        raise InputError(
            f"all_zero is {all_zero!r}; give {' or '.join(ALL_ZERO)}"
        )
    return prepare_corpus(
        CMU_MOSEI,
        partial(_collect, labels=labels, all_zero=all_zero),
        data_folder,
        save_folder,
        decode=decode,
        refuse=_refuse,
        labels=_signature(labels),
        all_zero=all_zero,
        folds=sha256(FOLDS.read_bytes()),
    )


def _signature(labels):
    """Of a label file outside the data folder; it changes with the file."""
    if not labels:
        return ""
    path = Path(labels).expanduser()
    if not path.is_file():
        raise InputError(f"{path}: no such label file")
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"


def _collect(folder, paths, labels, all_zero):
    """The segments of the label file, each within its video's audio."""
    segments = _read_labels(_find_labels(folder, labels))
    audio, dropped = {}, []
    for path in map(PurePosixPath, paths):
        if path.parent.name != WAVS:
            dropped.append((str(path), f"not a whole video: not in {WAVS}"))
        elif path.stem not in segments:
            dropped.append((str(path), f"unlabelled: not in {LABELS}"))
        elif path.stem in audio:
            problem = f"duplicate: has the name of {audio[path.stem]}"
            dropped.append((str(path), problem))
        else:
            audio[path.stem] = str(path)
    folds = {
        row["video"]: row["split"]
        for row in read_table(FOLDS, ("video", "split"))
    }
    rows = []
    for video, judged in segments.items():
        transcript = _transcript(folder, video) if video in audio else []
        for start, stop, *intensities in judged:
            # 239 of them begin before the video
            start = max(start, 0.0)
            item = _item(video, start, stop)
            if video not in audio:
                dropped.append((item, f"missing: no {WAVS}/{video}.wav"))
            elif video not in folds:
                dropped.append((item, "in no fold: the video has no split"))
            else:
                row = {
                    "ID": item,
                    "wav": audio[video],
                    "split": folds[video],
                    "speaker": video,
                    "text": _text(transcript, start, stop),
                }
                label = _label(intensities, all_zero)
                rows.append({**row, **_times(start, stop), **label})
    _check_counts(segments)
    return rows, dropped


def _item(video, start, stop):
    """An ID by the times in milliseconds, because rows have no number.

    The order of the label file is not that of the transcript's clips, nor
    the same in every edition.
    """
    times = 1000 * start, 1000 * stop
    # Of the products: a damaged time may be finite and they not
    if not all(map(math.isfinite, times)):
        return f"{video}_without_times"
    return "_".join([video, *(f"{round(time):06d}" for time in times)])


def _times(start, stop):
    """Start and stop of a segment, and why it cannot be used."""
    times = {"start": round(start, 4), "stop": round(stop, 4)}
    if not stop > start:
        return {**times, "problem": f"mislabelled: from {start} s to {stop} s"}
    return times


def _refuse(row, seconds):
    """Why a segment is not within the audio of its video."""
    if row["stop"] > seconds + BEYOND:
        return f"outside: ends at {row['stop']:g} s of a file of {seconds:g} s"
    return ""


def _label(intensities, all_zero):
    """Label and emotion of a segment by the intensities of the six."""
    if not all(map(math.isfinite, intensities)):
        return {"label": "", "problem": "mislabelled: an intensity is NaN"}
    clipped = [min(max(value, 0.0), STRONGEST) for value in intensities]
    top = max(clipped)
    if top < EQUAL:
        emotion = "neutral" if all_zero == "neutral" else ""
        return {"label": "none", "emotion": emotion}
    strongest = [
        emotion
        for emotion, value in zip(EMOTIONS, clipped, strict=True)
        if value > top - EQUAL
    ]
    emotion = canonical(strongest[0]) if len(strongest) == 1 else ""
    return {"label": "+".join(strongest), "emotion": emotion}


def _find_labels(folder, labels):
    if labels:
        return Path(labels).expanduser()
    for pattern in (LABELS, f"*/{LABELS}", f"*/*/{LABELS}"):
        for path in sorted(folder.glob(pattern)):
            return path
    raise InputError(
        f"{folder}: no {LABELS} here and two levels down; --labels says "
        "where it is"
    )


def _read_labels(path):
    """Video to a list of (start, stop, the six intensities)."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"reading {path.name} needs h5py: pip install h5py"
        ) from None
    try:
        with h5py.File(path) as file:
            # One group, "All Labels"
            group = next(iter(file.values()))
            columns, data = _columns(group), group["data"]
            return {
                video: _segments(data[video], columns) for video in sorted(data)
            }
    except InputError:
        raise
    # What h5py meets in a file that is broken off, or another one
    except (
        *(OSError, KeyError, IndexError, ValueError),
        *(TypeError, AttributeError, RuntimeError, StopIteration),
    ) as error:
        raise InputError(
            f"{path}: not {LABELS} as released ({error})"
        ) from None


def _columns(group):
    """Where the six emotions are among the columns."""
    names = None
    if "metadata" in group and "dimension names" in group["metadata"]:
        # One string, which holds a list in JSON
        names = json.loads(group["metadata/dimension names"][0])
    names = [str(name).strip().lower() for name in names or DIMENSIONS]
    words = [ALIASES.get(name, name) for name in names]
    absent = [name for name in EMOTIONS if canonical(name) not in words]
    if absent:
        raise InputError(
            f"{group.file.filename}: has no dimension {', '.join(absent)}; "
            f"found {', '.join(names)[:200]}"
        )
    return [words.index(canonical(name)) for name in EMOTIONS]


def _segments(video, columns):
    features, times = video["features"][()], video["intervals"][()]
    return [
        (*map(float, time), *map(float, feature[columns]))
        for time, feature in zip(times, features, strict=True)
    ]


def _transcript(folder, video):
    """List of (start, stop, text)."""
    clips = []
    for root in ("Raw/", ""):
        path = folder / f"{root}Transcript/Segmented/Combined/{video}.txt"
        # Not splitlines, which breaks lines at U+0085 and others too
        for line in read_text(path).split("\n"):
            # Example: -3g5yACwYnA___10___82.7645___100.5552___Key is part ...
            parts = line.split("___", 4)
            try:
                clips.append((float(parts[2]), float(parts[3]), parts[4]))
            except (IndexError, ValueError):
                continue
    return clips


def _text(transcript, start, stop):
    for begin, end, text in transcript:
        # The times were clamped: a clip may begin before the video
        if (
            abs(max(begin, 0.0) - start) < SAME_TIME
            and abs(end - stop) < SAME_TIME
        ):
            return text
    return ""


def _check_counts(segments):
    total = sum(map(len, segments.values()))
    if (total, len(segments)) == (SEGMENTS, VIDEOS):
        print(f"labels equal the release's: {total} segments")
    else:
        print(
            f"warning: {LABELS} has {total} segments of {len(segments)} "
            f"videos, the release has {SEGMENTS} of {VIDEOS}",
            file=sys.stderr,
        )


main = entry_point(
    CMU_MOSEI,
    prepare_cmu_mosei,
    __doc__,
    labels={"help": f"{LABELS}; default: looked for in the data folder"},
    all_zero={
        "choices": ALL_ZERO,
        "help": "what a segment without any emotion is; default: neutral",
    },
)

if __name__ == "__main__":
    main()
