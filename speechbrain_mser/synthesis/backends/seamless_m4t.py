"""SeamlessM4T v2: speech to speech in one voice, with transformers."""

from importlib.metadata import version

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import Backend, Translation

# Two frames: its features are normalised by how they vary.
MIN_SAMPLES = 560
DTYPES = ("float16", "bfloat16", "float32")
# fmt: off
LANGUAGES = (
    "arb", "ben", "cat", "ces", "cmn", "cym", "dan", "deu", "eng",
    "est", "fin", "fra", "hin", "ind", "ita", "jpn", "kor", "mlt",
    "nld", "pes", "pol", "por", "ron", "rus", "slk", "spa", "swe",
    "swh", "tel", "tgl", "tha", "tur", "ukr", "urd", "uzn", "vie",
)
# fmt: on
FILES = ("config.json", "generation_config.json", "preprocessor_config.json")


class SeamlessM4T(Backend):
    """Translates with ``SeamlessM4Tv2ForSpeechToSpeech``, in this process.

    It keeps what is said and not how: one voice, without emotion. So it is
    the ablation beside SeamlessExpressive, and the translator that needs
    nothing else installed. Nothing is sampled; what an utterance becomes does
    not depend on its batch, but for rounding.

    Arguments
    ---------
    hub : str
        Hub name or folder.
    save_path : str
        Where files from the hub are kept.
    speaker_id : int
        One of the vocoder's 200 voices.
    num_beams : int
        For decoding the text.
    dtype : str
        "float16", "bfloat16", or "float32", which a CPU needs.
    device : str
        Such as "cuda:1"; "auto" is the first GPU, else the CPU.
    max_seconds : float
        Longest utterance; of longer ones a part gets lost.

    Example
    -------
    >>> backend = SeamlessM4T(speaker_id=7)
    >>> backend.settings()["speaker_id"], "fra" in backend.languages
    (7, True)
    """

    #: That its vocoder speaks; a model may have fewer, see `open`.
    languages = LANGUAGES

    def __init__(
        self,
        hub="facebook/seamless-m4t-v2-large",
        save_path="pretrained_models",
        speaker_id=0,
        num_beams=5,
        dtype="float16",
        device="auto",
        max_seconds=20.0,
    ):
        if dtype not in DTYPES:
            raise InputError(
                f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}"
            )
        self.hub = str(hub)
        self.save_path = save_path
        self.speaker_id = speaker_id
        self.num_beams = num_beams
        self.dtype = dtype
        self.device = device
        self.max_seconds = max_seconds
        self._model = None
        self._extractor = None
        self._commit = None

    def settings(self):
        """What decides how its audio sounds.

        Returns
        -------
        dict
            Model, voice, precision and decoding.
        """
        return {
            "model": self.hub,
            "speaker_id": self.speaker_id,
            "num_beams": self.num_beams,
            "dtype": self.dtype,
        }

    def open(self):
        """Load the model; see `Backend.open`."""
        if self._model is None:
            self._load()
        return {
            "transformers": version("transformers"),
            "torch": version("torch"),
            "model": self._commit or self.hub,
            "device": self._model.device.type,
        }

    def translate(self, utterances, language):
        """Translate a batch; see `Backend.translate`."""
        self.open()
        if language not in self.languages:
            raise InputError(
                f"{language!r} is none of the languages that {self.hub} "
                f"speaks: {', '.join(self.languages)}"
            )
        long = [u for u in utterances if len(u.samples) >= MIN_SAMPLES]
        inputs = [self._input(utterance) for utterance in long]
        texts = self._texts(inputs, language) if inputs else []
        said = (
            self._say(one, tokens, language)
            for one, tokens in zip(inputs, texts, strict=True)
        )
        return [
            next(said)
            if len(utterance.samples) >= MIN_SAMPLES
            else Translation(error="too short to be speech")
            for utterance in utterances
        ]

    def close(self):
        """Let the model go."""
        self._model = self._extractor = None

    def _load(self):
        from safetensors import SafetensorError
        from transformers import AutoConfig, SeamlessM4TFeatureExtractor

        from speechbrain_mser.devices import find_device
        from speechbrain_mser.lobes.hub import find_model, load_model
        from speechbrain_mser.synthesis.backends.m4t_model import SpeechToSpeech

        device = find_device(self.device)
        if device == "cpu" and self.dtype != "float32":
            raise InputError(
                f"m4t_dtype is {self.dtype} on a CPU; give float32, or a GPU "
                f"(device is {self.device})"
            )
        folder = find_model(
            self.hub, self.save_path, "SeamlessM4T", "m4t_hub", FILES
        )
        # As a hub's cache lays them out
        if folder.parent.name == "snapshots":
            self._commit = folder.name
        kind = AutoConfig.from_pretrained(
            folder, trust_remote_code=False
        ).model_type
        if kind != "seamless_m4t_v2":
            raise InputError(
                f"m4t_hub: {self.hub} is a {kind}, a seamless_m4t_v2 is "
                "expected"
            )
        try:
            model, _ = load_model(
                SpeechToSpeech,
                folder,
                "SeamlessM4T (m4t_hub)",
                dtype=self.dtype,
            )
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"m4t_hub: {self.hub} cannot be loaded: {error}"
            ) from None
        voices = model.config.vocoder_num_spkrs
        if not 0 <= self.speaker_id < voices:
            raise InputError(
                f"speaker_id is {self.speaker_id}; {self.hub} has the "
                f"voices 0 to {voices - 1}"
            )
        known = getattr(model.generation_config, "vocoder_lang_code_to_id", {})
        self.languages = tuple(sorted(known))
        self._extractor = SeamlessM4TFeatureExtractor.from_pretrained(folder)
        self._model = model.eval().to(device)

    def _input(self, utterance):
        """An utterance's features, by themselves."""
        inputs = self._extractor(
            utterance.samples, sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).to(self._model.device)
        dtype = self._model.dtype
        inputs["input_features"] = inputs["input_features"].to(dtype)
        return dict(inputs)

    def _texts(self, inputs, language):
        """Their tokens, in halves where memory is short; None: not even one."""
        import torch

        try:
            return self._model.decode_texts(inputs, language, self.num_beams)
        except torch.OutOfMemoryError:
            if len(inputs) == 1:
                return [None]
        # Not in the except clause, whose traceback holds on to the memory.
        torch.cuda.empty_cache()
        half = len(inputs) // 2
        return self._texts(inputs[:half], language) + self._texts(
            inputs[half:], language
        )

    def _say(self, one, tokens, language):
        import torch

        out_of_memory = Translation(error="out of GPU memory")
        if tokens is None:
            return out_of_memory
        text = self._model.spell(tokens)
        if not text:
            return Translation(error="the translation has no words")
        try:
            samples = self._model.say(one, tokens, language, self.speaker_id)
        except torch.OutOfMemoryError:
            return out_of_memory
        except IndexError:
            # Units that are none: the model's answer to what is no speech.
            return Translation(text=text, error="its units cannot be spoken")
        return Translation(samples, self._model.config.sampling_rate, text)
