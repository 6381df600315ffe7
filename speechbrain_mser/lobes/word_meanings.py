"""What words for feelings mean, as the LLM reads them.

Pleasure, arousal and dominance are the axes along which people's judgements of
such words differ most (Mehrabian, 1996). An LLM knows them: its middle layers'
hidden states of a word, projected on the direction from words of one pole to
words of the other, follow published values (correlations of 0.93, 0.83 and
0.92 over 30 words for SmolLM2-135M; its embeddings of the words alone 0.73,
0.78 and 0.57). So what a trained reading of the audio says of the three is
said of any word, of those that no training said, too.
"""

import torch
import torch.nn.functional as F

from speechbrain_mser.errors import InputError

AXES = {
    "pleasure": (
        "good happy pleasant wonderful positive love joy nice beautiful "
        "pleasure",
        "bad unhappy unpleasant terrible negative hate misery nasty ugly pain",
    ),
    "arousal": (
        "excited active loud fast intense energetic wild alert shouting awake",
        "calm passive quiet slow mild tired still sleepy whispering asleep",
    ),
    "dominance": (
        "strong powerful dominant confident brave controlling aggressive "
        "proud bold big",
        "weak helpless submissive timid afraid controlled gentle ashamed shy "
        "small",
    ),
}
# What the LLM has read when it comes to a word. Several, so that little hangs on
# whether the word is a noun or an adjective: "feels disgusted", "of disgust".
FRAMES = (
    "The speaker feels",
    "The speaker is feeling",
    "A voice of",
    "The speaker's emotion is",
)
# The layers that know most of meaning, as parts of the LLM's depth.
FIRST, LAST = 0.4, 0.667
# How far apart poles must at least be, as cosines.
MARGIN = 1e-3
# The squared distance that divides a word's odds by e; poles are at 1 and -1.
TEMPERATURE = 1.0


def meaning_odds(heard, words):
    """Unnormalised log-odds of every word for what was heard of its meaning.

    Arguments
    ---------
    heard : torch.Tensor
        ``[batch, 3]``, pleasure, arousal and dominance, as a connector reads
        them.
    words : torch.Tensor
        ``[words, 3]``, those of words, from `WordMeanings`.

    Returns
    -------
    torch.Tensor
        ``[batch, words]``, float32: minus the squared distance.

    Example
    -------
    >>> words = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> meaning_odds(torch.tensor([[1.0, 1.0, 0.0]]), words)
    tensor([[-1., -2.]])
    """
    with torch.autocast(heard.device.type, enabled=False):
        apart = heard.float()[:, None] - words.float().to(heard.device)
        return -apart.square().sum(-1) / TEMPERATURE


def give_untrained(scores, meant, untrained):
    """Log-probabilities of words of which some were never trained.

    What training brought near to a word says little of words that it never
    had. So theirs are those of their meaning; what it leaves to the others is
    shared out among them as if they alone were asked for.

    Arguments
    ---------
    scores : torch.Tensor
        ``[batch, trained words]``, log-odds.
    meant : torch.Tensor
        ``[batch, words]``, log-odds of `meaning_odds`, of all words.
    untrained : list of bool
        ``[words]``.

    Returns
    -------
    torch.Tensor
        ``[batch, words]``, log-probabilities that add up to 1.

    Example
    -------
    >>> scores = torch.tensor([[0.9, 0.1]]).log()
    >>> meant = torch.tensor([[0.25, 0.25, 0.5]]).log()
    >>> give_untrained(scores, meant, [False, False, True]).exp()
    tensor([[0.4500, 0.0500, 0.5000]])
    """
    log_probs = meant.log_softmax(-1)
    trained = ~torch.tensor(untrained, device=meant.device)
    left = log_probs[:, trained].logsumexp(-1, keepdim=True)
    log_probs[:, trained] = left + scores.log_softmax(-1)
    return log_probs


def refuse_adapters(lora_rank):
    """Refuse an LLM that training changes: what words mean would change too.

    Arguments
    ---------
    lora_rank : int
        Of its adapters, where a connector hears meaning.

    Raises
    ------
    InputError
        It has some.

    Example
    -------
    >>> refuse_adapters(8)
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: hear_meaning is for an LLM that ...
    """
    if lora_rank > 0:
        raise InputError(
            "hear_meaning is for an LLM that stays as it is; lora_rank is "
            f"{lora_rank}, expected 0"
        )


class WordMeanings:
    """Pleasure, arousal and dominance of any word, as an LLM knows them.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        A frozen causal LM.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its own.
    frames : list of str
        What stands before a word; means over all.

    Raises
    ------
    InputError
        The LLM does not tell the poles of the axes apart.
    """

    def __init__(self, model, tokenizer, frames=FRAMES):
        self.model, self.tokenizer, self.frames = model, tokenizer, frames
        self._known = {}
        depth = model.config.get_text_config().num_hidden_layers
        self._layers = range(round(FIRST * depth), round(LAST * depth) + 1)
        words = [
            w for poles in AXES.values() for pole in poles for w in pole.split()
        ]
        # [axes, poles, words, readings, hidden]
        poles = self._read(words).unflatten(0, (len(AXES), 2, -1))
        self._centre = poles.mean((0, 1, 2))
        self._axes = F.normalize((poles[:, 0] - poles[:, 1]).mean(1), dim=-1)
        places = self._project(poles)  # [axes, poles, words, readings, axes]
        own = places.diagonal(dim1=0, dim2=-1).mean(
            1
        )  # [poles, readings, axes]
        # One unit for all, so that an axis that tells less counts less.
        self._half = (own[0] - own[1]).mean(-1) / 2
        if not bool((self._half > MARGIN).all()):
            raise InputError(
                "the LLM reads words of opposite meaning alike (its tokenizer "
                "may not know them): hear_meaning is for one that knows English"
            )

    def __call__(self, words):
        """Where words lie.

        Arguments
        ---------
        words : list of str
            Any words or short phrases.

        Returns
        -------
        torch.Tensor
            ``[words, 3]``, float32, on the CPU: pleasure, arousal, dominance,
            of which 1 and -1 are about the poles'.
        """
        return torch.stack([self._place(word) for word in words])

    def _place(self, word):
        if word not in self._known:
            # Alone: beside others its last bits would be others.
            (states,) = self._read([word])
            places = self._project(states)
            self._known[word] = (places / self._half[:, None]).mean(0)
        return self._known[word]

    def _project(self, states):
        """``[..., readings, hidden]`` to ``[..., readings, axes]``."""
        with torch.autocast("cpu", enabled=False):
            directions = F.normalize(states - self._centre, dim=-1)
            return torch.einsum("...lh,alh->...la", directions, self._axes)

    def _read(self, words):
        """Words' hidden states, ``[words, readings, hidden]``.

        A reading is a layer's, of a word after one of the frames.
        """
        frames = [self._read_after(before, words) for before in self.frames]
        return torch.cat(frames, dim=1)

    @torch.no_grad()
    def _read_after(self, before, words):
        """Words' hidden states after a frame, ``[words, layers, hidden]``."""
        texts = [f"{before} {word}" for word in words]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        if self.tokenizer.bos_token_id is not None:
            ids = [[self.tokenizer.bos_token_id, *one] for one in ids]
        longest = max(len(one) for one in ids)
        device = self.model.get_input_embeddings().weight.device
        # Padding is at the end, where nothing that counts looks.
        padded = [one + one[-1:] * (longest - len(one)) for one in ids]
        with torch.autocast(device.type, enabled=False):
            states = self.model(
                input_ids=torch.tensor(padded, device=device),
                output_hidden_states=True,
                logits_to_keep=1,
                use_cache=False,
            ).hidden_states
        last = torch.tensor([len(one) - 1 for one in ids], device=device)
        rows = torch.arange(len(ids), device=device)
        kept = [states[n][rows, last] for n in self._layers]
        return torch.stack(kept, dim=1).float().cpu()
