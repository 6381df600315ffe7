"""The frozen LLM that hears audio tokens and says the emotion word."""

import re
import warnings
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    mark_as_transfer,
    register_checkpoint_hooks,
)
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig

from speechbrain_mser.distributed import sum_over_ranks
from speechbrain_mser.emotions import (
    candidate_labels,
    check_emotion_words,
    without_trained,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.adapters import (
    add_adapters,
    load_adapters,
    save_adapters,
)
from speechbrain_mser.lobes.candidates import candidate_tree, log_normalizer
from speechbrain_mser.lobes.families import longest_tree, require_family
from speechbrain_mser.lobes.half_weights import (
    multiply_in_float32,
    stored_half,
    with_float32_norms,
)
from speechbrain_mser.lobes.hub import find_model, load_model, resolve_dtype
from speechbrain_mser.lobes.lean import (
    checkpoint_layers,
    fastest_attention,
    four_bits,
    multiply_head_at_once,
)
from speechbrain_mser.lobes.nearest_words import mix_words, word_odds
from speechbrain_mser.lobes.no_remote_code import DataOnly
from speechbrain_mser.lobes.prefix import KnownPrefix
from speechbrain_mser.lobes.prompt import Prompt
from speechbrain_mser.lobes.weight_files import model_digest
from speechbrain_mser.lobes.word_meanings import (
    FRAMES,
    WordMeanings,
    give_untrained,
    meaning_odds,
    refuse_adapters,
)

with warnings.catch_warnings():
    # SpeechBrain's file imports its own parent from a deprecated place.
    warnings.simplefilter("ignore")
    from speechbrain.integrations.huggingface.llama import LLaMA


@register_checkpoint_hooks
class EmotionLLaMA(DataOnly, LLaMA):
    """A frozen causal LM over ``[bos, audio, prompt, emotion word, end]``.

    There may be text before the audio, and a chat around it (`Prompt`).

    Any model of the families in `speechbrain_mser.lobes.families` works: LLaMA
    3, SmolLM2, Qwen, Gemma, Mistral ... Their numbers are transformers' own;
    other models are refused. SpeechBrain's lobe adds a padding token and with it random
    rows to the frozen embeddings; here the LLM stays the hub's own: all
    utterances have the same number of audio tokens, so nothing needs padding
    but the ends of longer words, which nothing attends to.

    The word is followed by the end token in training and in scoring, which
    makes the probabilities of words that begin alike ("fear", "fearful")
    comparable.

    Arguments
    ---------
    source : str
        Hub name or folder.
    save_path : str
        Where files from the hub are kept.
    prompt : str
        The question, after the audio and before the word.
    dtype : str
        In which it computes ("float32", "float16", "bfloat16", or "auto", see
        `resolve_dtype`). Where that is float32, a LLaMA's matrices that lie in
        16 bits in its files stay so in the memory, until it is trained
        through: they are upcast when they are needed.
    load_in_4bit : bool
        Quantise the weights to 4 bits (NF4) with bitsandbytes.
    lora_rank : int
        Above 0, train low-rank adapters of this rank in the attention's
        query and value projections, with peft. The paper trains none.
    prompt_before : str
        Text before the audio.
    chat_template : bool
        Whether texts and audio are a user's turn, as the tokenizer's chat
        template writes it, and the word is the answer.
    emotion_words : dict, optional
        Label to the word that is said for it, where that is another one: fear
        to "scared", or to "Angst". Labels stay what they are everywhere else.
    token_mixture : bool
        Whether what the LLM reads of the audio are mixtures of the candidates'
        embeddings, weighed by how near the audio's tokens are (`mix_words`).
        It was never trained to read anything else, and candidates that no
        training said are heard, too. The paper's tokens are free.
    meaning_frames : list of str
        What the LLM reads before a word whose meaning is asked for
        (`WordMeanings`).
    activation_checkpointing : bool
        Keep only the input of every layer for the backward pass of the
        `loss`, and compute a layer again when its gradient is due: much less
        memory for about half as much time again.

    Example
    -------
    >>> import tempfile
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = ["<s>", "</s>", "?", "Emotion", "happy", "sad"]
    >>> vocabulary = {word: number for number, word in enumerate(words)}
    >>> tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> folder = tempfile.mkdtemp()
    >>> _ = PreTrainedTokenizerFast(tokenizer_object=tokenizer,
    ...     bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    >>> LlamaForCausalLM(LlamaConfig(vocab_size=6, hidden_size=16,
    ...     intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    ...     num_key_value_heads=2)).save_pretrained(folder)
    >>> llama = EmotionLLaMA(folder, prompt="Emotion?")
    >>> audio = torch.randn(3, 4, 16)
    >>> llama.loss(audio, ["happy", "sad", "sad"]).shape
    torch.Size([])
    >>> llama.score(audio, ["happy", "sad"]).shape
    torch.Size([3, 2])
    """

    # Whether matrices lie in 16 bits and are multiplied in float32
    _upcasts = False

    def __init__(
        self,
        source,
        save_path="pretrained_models",
        prompt="What is the emotion of the speaker? Answer with one word:",
        dtype="float32",
        load_in_4bit=False,
        lora_rank=0,
        activation_checkpointing=False,
        emotion_words=None,
        prompt_before="",
        chat_template=False,
        token_mixture=False,
        meaning_frames=FRAMES,
    ):
        self.source = source = str(source)
        self.lora_rank = lora_rank
        folder = find_model(
            source,
            save_path,
            "the LLM",
            "llama_hub",
            ("config.json", "tokenizer_config.json"),
        )
        dtype = resolve_dtype(dtype)
        # Past LLaMA's constructor to its parent's: LLaMA's would add a token
        # and random embeddings.
        super(LLaMA, self).__init__(
            source=str(folder),
            save_path=save_path,
            freeze=True,
            with_casual_lm=True,
            quantization_config=four_bits(dtype) if load_in_4bit else None,
            dtype=dtype,
        )
        # Greedy decoding is ours; theirs may ask for code from the hub.
        self.model.generation_config = GenerationConfig()
        self.prompt, self.prompt_before = prompt, prompt_before
        self.chat_template = chat_template
        self.token_mixture = token_mixture
        self.meaning_frames = list(meaning_frames)
        self.emotion_words = dict(emotion_words or {})
        self.load_tokenizer(source=str(folder))
        self.hidden_size = self.model.config.hidden_size
        self._prompts = {}
        self._around()  # says what the tokenizer lacks
        self._longest_tree = longest_tree(self.model.config)
        self._known = None, None  # a `KnownPrefix` and what it is of
        if lora_rank > 0:
            add_adapters(self.model, lora_rank)
        if activation_checkpointing:
            checkpoint_layers(self.model)
        multiply_head_at_once(self.model.get_output_embeddings())

    def _from_pretrained(self, source, dtype, **kwargs):
        del kwargs  # where the parent would look for it
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(self.config)]
        # Adapters and quantisation put other modules in the place of its own.
        plain = self.lora_rank == 0 and self.quantization_config is None
        wide = plain and dtype == "float32"
        half = stored_half(source, self.config) if wide else None
        self._upcasts = half is not None
        if self._upcasts:
            model_class, dtype = with_float32_norms(model_class), half
        self.model, unused = load_model(
            model_class,
            source,
            "the LLM (llama_hub)",
            config=self.config,
            quantization_config=self.quantization_config,
            dtype=dtype,
            **fastest_attention(),
        )
        if self._upcasts:
            multiply_in_float32(self.model)
        head = self.model.get_output_embeddings()
        if head is not None and (
            head.weight is self.model.get_input_embeddings().weight
        ):
            unused.add("lm_head.weight")
        self.digest = model_digest(source, partial(_own_name, unused))

    def override_config(self, config):
        """Refuse what is not known to work, before anything is loaded."""
        require_family(config, self.source)
        return config

    def train(self, mode=True):
        """Stay in evaluation mode: frozen dropout is no dropout."""
        del mode
        return super().train(False)

    def describe(self):
        """What a connector's checkpoint remembers: name, width, weights.

        The weights' digest is that of the LLM's files (`model_digest`),
        without a head that is tied to the embeddings.
        """
        return {
            "name": self.source,
            "width": self.hidden_size,
            "digest": self.digest,
        }

    @cached_property
    def embedding_rms(self):
        """Root mean square of the LLM's own embeddings, a float.

        Of what its layers read, not of the weights: some LLMs (Gemma) scale
        what they look up.
        """
        table = self.model.get_input_embeddings()
        ids = torch.arange(len(table.weight), device=table.weight.device)
        with torch.no_grad():
            # In parts: a copy of 128,256 rows would take 2 GB in float32.
            squares = [
                table(part).float().square().mean(-1)
                for part in ids.split(4096)
            ]
        return torch.cat(squares).mean().sqrt().item()

    @torch.no_grad()
    def word_embeddings(self, words):
        """The words' embeddings, as the LLM's layers read them.

        Arguments
        ---------
        words : list of str
            Labels.

        Returns
        -------
        torch.Tensor
            ``[words, hidden_size]``, float32; of a word of several tokens the
            mean, without the end token.
        """
        device = self.model.get_input_embeddings().weight.device
        ids = [self.word_tokens(word)[:-1] for word in words]
        return torch.stack(
            [
                self._embed(torch.tensor(tokens, device=device)).float().mean(0)
                for tokens in ids
            ]
        )

    @cached_property
    def word_meanings(self):
        """Pleasure, arousal, dominance of words: `WordMeanings`.

        Raises
        ------
        InputError
            Adapters are trained, which would change what words mean.
        """
        refuse_adapters(self.lora_rank)
        return WordMeanings(self.model, self.tokenizer, self.meaning_frames)

    def meaning_odds(self, meaning, label_words):
        """Log-odds of candidates for what a connector heard of the meaning.

        Arguments
        ---------
        meaning : torch.Tensor
            ``[batch, 3]``, from a connector.
        label_words : list of str
            The candidates.

        Returns
        -------
        torch.Tensor
            ``[batch, candidates]``, float32.
        """
        said = [self.emotion_words.get(word, word) for word in label_words]
        return meaning_odds(meaning, self.word_meanings(said))

    def nearness(self, audio, label_words, meaning=None, trained=()):
        """How near an utterance is to each candidate, before the LLM reads it.

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        label_words : list of str
            The candidates.
        meaning : torch.Tensor, optional
            ``[batch, 3]``, from a connector that hears it. It decides what
            candidates that were never trained are worth; the others are
            weighed against each other as without them.
        trained : iterable of str
            Those that were, in capitals or not.

        Returns
        -------
        torch.Tensor
            ``[batch, candidates]``, float32, log-probabilities: the tokens'
            mean `word_odds`, normalised.
        """
        if meaning is not None:
            return self._with_untrained(
                self.nearness, audio, label_words, meaning, trained
            )
        words = self.word_embeddings(label_words)
        odds = word_odds(audio, words, self.embedding_rms)
        return odds.mean(1).log_softmax(-1)

    def _with_untrained(self, score, audio, label_words, meaning, trained):
        """What gives trained words' scores, and the meaning of the others."""
        for word in label_words:
            self.word_tokens(word)  # says itself what is no word here
        never = without_trained(label_words, trained)
        known = [word for word in label_words if word not in never]
        scores = (
            score(audio, known)
            if known
            else torch.zeros(len(audio), 0, device=audio.device)
        )
        if not never:
            return scores
        meant = self.meaning_odds(meaning, label_words)
        untrained = [word in never for word in label_words]
        return give_untrained(scores, meant, untrained)

    def _read(self, audio, label_words):
        """The audio's tokens as the LLM reads them among some candidates."""
        if not self.token_mixture:
            return audio
        if not label_words:
            raise InputError(
                "tokens are mixtures of the candidates here (token_mixture): "
                "label_words says which"
            )
        words = self.word_embeddings(label_words)
        return mix_words(word_odds(audio, words, self.embedding_rms), words)

    def forward(self, audio, words, label_words=None):
        """The `loss`; what DDP wraps when adapters are trained."""
        return self.loss(audio, words, label_words)

    def loss(self, audio, words, label_words=None, across_ranks=True):
        """Cross entropy of the emotion words (L_ce in Eq. 2 and 3).

        Logits are computed at the positions of the longest word alone: two of
        them for a word of one token, not the whole sequence times the
        vocabulary.

        When training is distributed the mean is over the label tokens of all
        ranks together: the loss is the one that a single process would see,
        and so are its gradients after DDP has averaged them.

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        words : list of str
            ``[batch]``, the word to be said for each utterance.
        label_words : list of str, optional
            All that may be said, where tokens are mixtures of them; by
            default those of this batch.
        across_ranks : bool
            Whether the batches of a distributed run's processes are one; no
            where all of them see the same utterances, as in validation.

        Returns
        -------
        torch.Tensor
            A scalar, in float32: the mean over all label tokens.
        """
        if self._upcasts and audio.requires_grad:
            # Not at every step, forward and backward
            self.model.float()
            self._upcasts = False
        targets = [self.word_tokens(word) for word in words]
        longest = max(len(target) for target in targets)
        # Padding is at the end, after all that counts: causal attention
        # never looks there, so no mask is needed.
        padded = torch.tensor(
            [t + [t[-1]] * (longest - len(t)) for t in targets],
            device=audio.device,
        )  # [batch, longest]
        # Found on the host, where the lengths are: a boolean mask would make
        # the device wait to learn how many tokens there are.
        real = torch.tensor(
            [
                number * longest + place
                for number, target in enumerate(targets)
                for place in range(len(target))
            ],
            device=audio.device,
        )
        label_words = label_words or list(dict.fromkeys(words))
        prefix = self._prefix(self._read(audio, label_words))
        inputs = torch.cat([prefix, self._embed(padded[:, :-1])], dim=1)
        logits = self._logits(inputs, longest).flatten(0, 1)[real]
        log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
        total = F.nll_loss(log_probs, padded.flatten()[real], reduction="sum")
        part = torch.stack([total, total.new_tensor(len(real))])
        total, count = sum_over_ranks(part) if across_ranks else part
        return total / count

    @torch.no_grad()
    def score(self, audio, label_words, meaning=None, trained=()):
        """Log-probability of every candidate word, in one pass.

        In as many as there are words where the LLM would not read a tree as
        it reads a word (`longest_tree`). Else the candidates follow the shared prefix as a tree (in attention mask
        and positions): each sees the prefix and itself, and words that begin
        alike share their beginning. All of them together cost a few tokens
        more than one.

        Every token is normalised over the whole vocabulary. Normalised over
        the candidates' tokens alone (as decoding under constraints does) a
        word's score would depend on which others are asked for, and a word
        with a rare beginning would pay nothing for it.

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        label_words : list of str
            The candidates: of any number of tokens, and prefixes of one
            another if need be.
        meaning, trained
            As for `nearness`.

        Returns
        -------
        torch.Tensor
            ``[batch, candidates]``, float32: log p(word, end | audio, prompt)
            under the LLM. Not normalised over the candidates; softmax does
            that. Where some have their meaning's, all of them are.
        """
        labels = candidate_labels(label_words)
        check_emotion_words(self.emotion_words, labels)
        if meaning is not None:
            return self._with_untrained(
                self.score, audio, labels, meaning, trained
            )
        candidates = tuple(tuple(self.word_tokens(word)) for word in labels)
        prefix = self._prefix(self._read(audio, labels))
        length = prefix.shape[1]
        tree = candidate_tree(candidates, length, prefix.device, prefix.dtype)
        leaves = self._embed(tree.inputs).expand(len(audio), -1, -1)
        inputs = torch.cat([prefix, leaves], dim=1)
        if inputs.shape[1] > self._longest_tree:
            return self._score_in_turn(prefix, candidates)
        logits = self._logits(
            inputs,
            1 + leaves.shape[1],  # the prefix's end, then the tree
            tree,
        )
        return tree.scores(logits)

    def _score_in_turn(self, prefix, candidates):
        """One word after the other, where the LLM can't read a tree."""
        scores = []
        for tokens in candidates:
            asked = torch.tensor(tokens, device=prefix.device)
            word = self._embed(asked[:-1]).expand(len(prefix), -1, -1)
            inputs = torch.cat([prefix, word], dim=1)
            logits = self._logits(inputs, len(tokens))
            said = logits[:, range(len(tokens)), asked].float()
            scores.append((said - log_normalizer(logits)).sum(-1))
        return torch.stack(scores, dim=1)

    @torch.no_grad()
    def generate(self, audio, max_new_tokens=8, label_words=None):
        """Let the LLM say what it wants (greedy decoding).

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        max_new_tokens : int
            Where to stop if it does not.
        label_words : list of str, optional
            What is in the mixtures, where tokens are some; others may be said.

        Returns
        -------
        list of str
            ``[batch]``, stripped.
        """
        prefix = self._prefix(self._read(audio, label_words))
        end_token = self._around().end_token
        known = self._known_prefix(
            prefix.device, prefix.shape[1] + max_new_tokens
        )
        ids = self.model.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(
                prefix.shape[:2], dtype=torch.long, device=prefix.device
            ),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=end_token,
            pad_token_id=end_token,
            **(known.growing(len(audio)) if known else {}),
        )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def word_tokens(self, word):
        """Token ids of a word as it follows the prompt, and the end token.

        Arguments
        ---------
        word : str
            Any word or short phrase, or a label that is said with another.

        Returns
        -------
        list of int
            At least two.

        Raises
        ------
        InputError
            The word becomes no token, or unknown tokens alone.
        """
        return self._around().word(self.emotion_words.get(word, word))

    def count_tokens(self, words):
        """How many label tokens words have, over which `loss` is a mean.

        Arguments
        ---------
        words : list of str
            Any words.

        Returns
        -------
        int
            With the end tokens.
        """
        return sum(len(self.word_tokens(word)) for word in words)

    def _around(self):
        """The `Prompt` of today's settings, made once for each."""
        texts = self._texts()
        if texts not in self._prompts:
            self._prompts[texts] = Prompt(self.tokenizer, *texts)
        return self._prompts[texts]

    def _texts(self):
        return self.prompt_before, self.prompt, self.chat_template

    def _embed(self, ids):
        return self.model.get_input_embeddings()(ids)

    def _prefix(self, audio):
        """``[batch, prefix, hidden_size]``: text, audio, text."""
        if audio.shape[-1] != self.hidden_size:
            raise InputError(
                f"audio tokens of width {audio.shape[-1]} for an LLM of width "
                f"{self.hidden_size}: the connector was built for another"
            )
        before, after = (
            self._embed(ids).expand(len(audio), -1, -1)
            for ids in self._around().tensors(audio.device)
        )
        return torch.cat([before, audio.to(after.dtype), after], dim=1)

    def _logits(self, embeddings, last, tree=None):
        """``[batch, last, vocabulary]``: the LLM's own at the last positions.

        By the LLM's own forward, since some scale their logits or cap them.
        What stands before the audio is not read again.
        """
        known = self._known_prefix(embeddings.device, embeddings.shape[1])
        start = len(known) if known else 0
        how = known.read_only() if known else {"use_cache": False}
        if tree:
            how["attention_mask"] = tree.mask[:, :, start:]
            how["position_ids"] = tree.positions[:, start:]
        return self.model(
            inputs_embeds=embeddings[:, start:], logits_to_keep=last, **how
        ).logits

    def _known_prefix(self, device, length):
        """The `KnownPrefix` of a sequence of some length, or None.

        Trained adapters would have it read anew at every step, a bos alone is
        not worth it, and for the rest the same holds as for a tree.
        """
        before = self._around().tensors(device)[0]
        is_plain = length <= self._longest_tree and self.lora_rank == 0
        if not is_plain or len(before) < 2:
            return None
        weight = self.model.get_input_embeddings().weight
        autocast = torch.is_autocast_enabled(device.type)
        autocast = autocast and torch.get_autocast_dtype(device.type)
        key = self._texts(), device, weight.dtype, autocast
        if self._known[0] != key:
            embeddings = self._embed(before)[None]
            self._known = key, KnownPrefix(self.model, embeddings)
        return self._known[1]

    # In a checkpoint, SpeechBrain calls this on the main process only.
    @mark_as_saver
    def save(self, path):
        """Write the adapters (not the LLM) as safetensors."""
        save_adapters(self, path)

    @mark_as_loader
    def _load_checkpoint(self, path, end_of_epoch):
        del end_of_epoch
        self.load(path)

    @mark_as_transfer
    def load(self, path):
        """Read what `save` wrote."""
        load_adapters(self, path, self.lora_rank)


def _own_name(unused, name):
    """A weight's name without what it is a part of; None if it isn't used."""
    bare = re.sub(r"^(model\.)+", "", name)
    return None if {name, bare} & unused else bare
