"""The frozen LLM that hears audio tokens and says the emotion word."""

import warnings

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    mark_as_transfer,
    register_checkpoint_hooks,
)

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.candidates import CandidateTree
from speechbrain_mser.lobes.hub import require_dtype, require_model

with warnings.catch_warnings():
    # SpeechBrain's file imports its own parent from a deprecated place.
    warnings.simplefilter("ignore")
    from speechbrain.integrations.huggingface.llama import LLaMA


@register_checkpoint_hooks
class EmotionLLaMA(LLaMA):
    """A frozen causal LM over ``[bos, audio, prompt, emotion word, end]``.

    Any model with LLaMA's interface in transformers works: LLaMA 3, SmolLM2,
    TinyLlama ... SpeechBrain's lobe adds a padding token and with it random
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
        Dtype of the weights ("float32", "float16", "bfloat16").
    load_in_4bit : bool
        Quantise the weights to 4 bits (NF4) with bitsandbytes.
    lora_rank : int
        Above 0, train low-rank adapters of this rank in the attention's
        query and value projections, with peft. The paper trains none.

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

    def __init__(
        self,
        source,
        save_path="pretrained_models",
        prompt="What is the emotion of the speaker? Answer with one word:",
        dtype="float32",
        load_in_4bit=False,
        lora_rank=0,
    ):
        source = str(source)
        require_model(
            source,
            save_path,
            "the LLM",
            "llama_hub",
            ("config.json", "tokenizer_config.json"),
        )
        require_dtype(dtype)
        # Past LLaMA's constructor to its parent's: LLaMA's would add a token
        # and random embeddings.
        super(LLaMA, self).__init__(
            source=source,
            save_path=save_path,
            freeze=True,
            with_casual_lm=True,
            quantization_config=_four_bits(dtype) if load_in_4bit else None,
            dtype=dtype,
        )
        self.source = source
        self.prompt = prompt
        self._require_interface()
        self.load_tokenizer(source=source, cache_dir=save_path)
        self.hidden_size = self.model.config.hidden_size
        self._require_end_token()
        self._tokens_of = {}
        self.lora_rank = lora_rank
        if lora_rank > 0:
            _add_lora(self.model, lora_rank)

    def train(self, mode=True):
        """Stay in evaluation mode: frozen dropout is no dropout."""
        del mode
        return super().train(False)

    def describe(self):
        """The name and width that a connector's checkpoint remembers."""
        return {"name": self.source, "width": self.hidden_size}

    @property
    def embedding_rms(self):
        """Root mean square of the LLM's own embeddings, a float."""
        weight = self.model.get_input_embeddings().weight
        return weight.detach().float().square().mean().sqrt().item()

    def forward(self, audio, words):
        """The `loss`; what DDP wraps when adapters are trained."""
        return self.loss(audio, words)

    def loss(self, audio, words):
        """Cross entropy of the emotion words (L_ce in Eq. 2 and 3).

        Logits are computed at the words' positions alone: two of them for a
        word of one token, not the whole sequence times the vocabulary.

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        words : list of str
            ``[batch]``, the word to be said for each utterance.

        Returns
        -------
        torch.Tensor
            A scalar, in float32: the mean over all label tokens.
        """
        targets = [self.word_tokens(word) for word in words]
        longest = max(len(target) for target in targets)
        # Padding is at the end, after all that counts: causal attention
        # never looks there, so no mask is needed.
        padded = torch.tensor(
            [t + [self.end_token] * (longest - len(t)) for t in targets],
            device=audio.device,
        )  # [batch, longest]
        prefix = self._prefix(audio)
        inputs = torch.cat([prefix, self._embed(padded[:, :-1])], dim=1)
        hidden = self._hidden(inputs)[:, prefix.shape[1] - 1 :]
        lengths = torch.tensor([len(t) for t in targets], device=audio.device)
        real = torch.arange(longest, device=audio.device) < lengths[:, None]
        logits = self.model.lm_head(hidden[real])  # [label tokens, vocabulary]
        return F.cross_entropy(logits.float(), padded[real])

    @torch.no_grad()
    def score(self, audio, label_words):
        """Log-probability of every candidate word, in one pass.

        The candidates follow the shared prefix side by side; each sees the
        prefix and itself (a tree of depth one, as attention mask and
        positions), so all of them together cost a few tokens more than one.

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        label_words : list of str
            The candidates: of any number of tokens, and prefixes of one
            another if need be.

        Returns
        -------
        torch.Tensor
            ``[batch, candidates]``, float32: log p(word, end | audio, prompt)
            under the LLM. Not normalised over the candidates; softmax does
            that.
        """
        candidates = [
            self.word_tokens(word) for word in candidate_labels(label_words)
        ]
        prefix = self._prefix(audio)
        tree = CandidateTree(candidates, prefix.shape[1], audio.device)
        leaves = self._embed(tree.inputs).expand(len(audio), -1, -1)
        hidden = self._hidden(
            torch.cat([prefix, leaves], dim=1),
            attention_mask=tree.mask(prefix.dtype),
            position_ids=tree.positions,
        )[:, prefix.shape[1] - 1 :]  # the prefix's end, then the candidates
        logits = self.model.lm_head(hidden).float()
        log_probs = logits.log_softmax(-1)  # [batch, 1 + leaves, vocabulary]
        token_scores = log_probs[:, tree.asked_at, tree.asked_for]
        scores = token_scores.new_zeros(len(audio), len(candidates))
        return scores.index_add(1, tree.asked_by, token_scores)

    @torch.no_grad()
    def generate(self, audio, max_new_tokens=8):
        """Let the LLM say what it wants (greedy decoding).

        Arguments
        ---------
        audio : torch.Tensor
            ``[batch, tokens, hidden_size]``, from a connector.
        max_new_tokens : int
            Where to stop if it does not.

        Returns
        -------
        list of str
            ``[batch]``, stripped.
        """
        prefix = self._prefix(audio)
        ids = self.model.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(
                prefix.shape[:2], dtype=torch.long, device=prefix.device
            ),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.end_token,
            pad_token_id=self.end_token,
        )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def word_tokens(self, word):
        """Token ids of a word as it follows the prompt, and the end token.

        Arguments
        ---------
        word : str
            Any word or short phrase.

        Returns
        -------
        list of int
            At least two.

        Raises
        ------
        InputError
            The word becomes no token, or unknown tokens alone.
        """
        place = self.prompt, word
        if place not in self._tokens_of:
            self._tokens_of[place] = self._tokenize(word)
        return self._tokens_of[place]

    def _tokenize(self, word):
        # Tokenised in its place, since a word's first token depends on the
        # space before it.
        prompt = self._ids(self.prompt)
        whole = self._ids(f"{self.prompt} {word}")
        if whole[: len(prompt)] == prompt:
            ids = whole[len(prompt) :]
        else:
            # The tokenizer merges over the border: take the word by itself.
            ids = self._ids(f" {word}")
        if not word.strip() or not ids:
            raise InputError(f"label {word!r} has no token in this LLM")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and all(i == unknown for i in ids):
            raise InputError(
                f"label {word!r} is unknown to this LLM's tokenizer"
            )
        return [*ids, self.end_token]

    def _ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _require_interface(self):
        if not (
            hasattr(self.model, "model") and hasattr(self.model, "lm_head")
        ):
            raise InputError(
                f"the LLM {self.source} is a {self.config.model_type}, which "
                "has not LLaMA's interface; choose another (llama_hub)"
            )

    def _require_end_token(self):
        self.end_token = self.tokenizer.eos_token_id
        if self.end_token is None:
            raise InputError(
                f"the LLM {self.source} has no end-of-text token in its "
                "tokenizer; choose another (llama_hub)"
            )

    def _embed(self, ids):
        return self.model.get_input_embeddings()(ids)

    def _prefix(self, audio):
        """``[batch, prefix, hidden_size]``: bos, audio, prompt."""
        if audio.shape[-1] != self.hidden_size:
            raise InputError(
                f"audio tokens of width {audio.shape[-1]} for an LLM of width "
                f"{self.hidden_size}: the connector was built for another"
            )
        bos = self.tokenizer.bos_token_id
        start = torch.tensor(
            [] if bos is None else [bos], dtype=torch.long, device=audio.device
        )
        prompt = torch.tensor(
            self._ids(self.prompt), dtype=torch.long, device=audio.device
        )
        size = len(audio)
        start = self._embed(start).expand(size, -1, -1)
        prompt = self._embed(prompt).expand(size, -1, -1)
        return torch.cat([start, audio.to(start.dtype), prompt], dim=1)

    def _hidden(self, embeddings, **kwargs):
        """Last hidden states, without the logits of every position."""
        return self.model.model(
            inputs_embeds=embeddings, use_cache=False, **kwargs
        ).last_hidden_state

    def _trained(self):
        """Parameters that are trained: the adapters, or none."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad}

    # In a checkpoint, SpeechBrain calls this on the main process only.
    @mark_as_saver
    def save(self, path):
        """Write the adapters (not the LLM) as safetensors."""
        tensors = {n: p.detach().cpu() for n, p in self._trained().items()}
        with atomic_path(path) as partial:
            save_file(tensors, partial)

    @mark_as_loader
    def _load_checkpoint(self, path, end_of_epoch):
        del end_of_epoch
        self.load(path)

    @mark_as_transfer
    def load(self, path):
        """Read what `save` wrote."""
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not adapters ({error})") from None
        trained = self._trained()
        # The shapes as well: copying would stretch rank 1 to any rank.
        found, expected = (
            {name: tuple(tensor.shape) for name, tensor in group.items()}
            for group in (tensors, trained)
        )
        if found != expected:
            raise InputError(
                f"{path}: adapters of another LLM or rank; it has "
                f"{_shapes(found)}, lora_rank {self.lora_rank} here needs "
                f"{_shapes(expected)}"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(tensors[name])


def _shapes(shapes):
    """How many tensors, and what the first one looks like."""
    first = next(iter(shapes.items()), "none")
    return f"{len(shapes)} tensors (first {first})"


def _four_bits(dtype):
    """The quantisation of 4-bit loading; needs bitsandbytes."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise InputError(
            "load_in_4bit needs bitsandbytes: "
            "pip install 'speechbrain-mser[quantized]'"
        ) from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _add_lora(model, rank):
    """Put trainable low-rank adapters into a frozen model, in place."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            "lora_rank needs peft: pip install 'speechbrain-mser[lora]'"
        ) from None
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"]
    )
    inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # In half precision, small steps would be rounded away.
            parameter.data = parameter.data.float()
