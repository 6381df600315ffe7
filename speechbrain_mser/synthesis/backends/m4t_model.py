"""SeamlessM4T v2 whose result for an utterance does not depend on the batch.

transformers' own batches change what an utterance becomes: the encoder's
adapter lets padding leak into the last frame, the end of a shorter sentence
is one token later than alone, and its last unit is spoken with padding beside
it, and cut later. Here the text, the slow part because a token needs the one
before, is decoded in batches; what is parallel in itself is done alone.
"""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationMixin, SeamlessM4Tv2ForSpeechToSpeech
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput


class TextDecodedBefore(GenerationMixin):
    """Gives the text that is there already in place of decoding one."""

    decoded = None

    def generate(self, *args, **kwargs):
        """The first half of the speech model's ``generate``."""
        if self.decoded is None:
            return super().generate(*args, **kwargs)
        return ModelOutput(sequences=self.decoded)


class SpeechToSpeech(SeamlessM4Tv2ForSpeechToSpeech, TextDecodedBefore):
    """transformers' model in two steps: texts together, speech alone."""

    def __init__(self, config):
        super().__init__(config)
        self.vocoder.register_forward_pre_hook(_refuse, with_kwargs=True)

    @torch.inference_mode()
    def decode_texts(self, inputs, language, num_beams):
        """What the utterances mean, in the target language.

        Arguments
        ---------
        inputs : list of dict
            ``input_features`` of ``[1, frames, dim]`` and ``attention_mask``.
        language : str
            ISO 639-3.
        num_beams : int
            Of the beam search.

        Returns
        -------
        list of torch.Tensor
            ``[tokens]``, with the start, the language and the end.
        """
        encoded = [self.speech_encoder(**one)[0][0] for one in inputs]
        masks = [one["attention_mask"][0] for one in inputs]
        config = self.generation_config
        start = config.text_decoder_lang_to_code_id[language]
        sequences = GenerationMixin.generate(
            self,
            encoder_outputs=BaseModelOutput(
                pad_sequence(encoded, batch_first=True)
            ),
            attention_mask=pad_sequence(masks, batch_first=True),
            decoder_input_ids=torch.full(
                (len(inputs), 1), start, device=self.device
            ),
            num_beams=num_beams,
            do_sample=False,
        )
        return [_up_to(config.eos_token_id, row) for row in sequences]

    @torch.inference_mode()
    def say(self, one, tokens, language, speaker_id):
        """Say a text.

        Arguments
        ---------
        one : dict
            The utterance's input, as for `decode_texts`.
        tokens : torch.Tensor
            ``[tokens]``, its text.
        language : str
            ISO 639-3.
        speaker_id : int
            One of the vocoder's voices.

        Returns
        -------
        numpy.ndarray
            ``[samples]``, float32.
        """
        self.decoded = tokens[None]
        try:
            waveform, lengths = self.generate(
                **one, tgt_lang=language, speaker_id=speaker_id
            )
        finally:
            self.decoded = None
        return waveform[0, : int(lengths)].float().cpu().numpy()

    def spell(self, tokens):
        """A text's letters.

        Arguments
        ---------
        tokens : torch.Tensor
            ``[tokens]``, as from `decode_texts`.

        Returns
        -------
        str
            Empty when there are no words.
        """
        config = self.generation_config
        special = {
            config.eos_token_id,
            config.pad_token_id,
            config.bos_token_id,
        }
        pieces = [
            config.id_to_text.get(str(token), "")
            # The first two are the start and the language.
            for token in tokens[2:].tolist()
            if token not in special
        ]
        return "".join(pieces).replace("▁", " ").strip()


def _up_to(end, row):
    """A row up to its end; the first token is the end's, as a start."""
    ends = (row[1:] == end).nonzero()
    return row[: int(ends[0]) + 2] if len(ends) else row


def _refuse(_vocoder, _arguments, named):
    """Refuse what is no unit, as a CPU does.

    A GPU would not raise an error that can be caught, but be unusable from
    then on.
    """
    if (named["input_ids"] < 0).any():
        raise IndexError("the text became control symbols, not speech units")
