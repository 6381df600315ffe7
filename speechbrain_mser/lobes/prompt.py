"""What the LLM reads around the audio, and says after it, in tokens."""

import secrets

import torch

from speechbrain_mser.errors import InputError

# In a text: the token that ends a word, whichever the LLM has. (HyperPyYAML
# would take a "<|im_end|>" for a reference.)
END = "{end}"
# Beside the messages. Some templates write today's date, which would make
# tomorrow's prompt another one, and some begin to think aloud.
TEMPLATE_ARGUMENTS = {"date_string": "26 Jul 2024", "enable_thinking": False}


class Prompt:
    """The texts before and after the audio, as one LLM's tokens.

    Plain, the LLM reads ``[bos, before, audio, after, word, end]``. In a chat
    the three in the middle are the user's turn and the word is the answer, all
    as the tokenizer's chat template writes it: it has the only bos, if any,
    and its end of turn is the end. There the user's texts and the word are
    text: what looks like a control token is spelled, not obeyed.

    Arguments
    ---------
    tokenizer : transformers.PreTrainedTokenizerBase
        The LLM's.
    before, after : str
        Before the audio, and after it: the question. ``{end}`` in them is the
        token that ends a word: shots ("joy -> joy{end}") show what an answer
        looks like.
    chat_template : bool
        Whether they are a user's turn in a chat.

    Attributes
    ----------
    before, after : list of int
        Tokens around the audio.
    end_token : int
        Ends a word.

    Raises
    ------
    InputError
        The tokenizer has no end token, or no chat template for this.
    """

    def __init__(self, tokenizer, before, after, chat_template=False):
        self._tokenizer = tokenizer
        self._source = tokenizer.name_or_path
        self._controls = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        self.end_token = tokenizer.eos_token_id
        if self.end_token is None:
            raise InputError(
                f"the LLM {self._source} has no end-of-text token in its "
                "tokenizer; choose another (llama_hub)"
            )
        start, bos, ending, self._space = "", [], "", " "
        if chat_template:
            start, ending, self._space = self._fill_in_template()
        elif tokenizer.bos_token_id is not None:
            bos = [tokenizer.bos_token_id]
        # Texts, and whether control tokens in them count as such.
        self._obeyed = not chat_template
        head = [(start, True), *self._with_ends(before)]
        self._tail = [*self._with_ends(after), (ending, True)]
        ids = self._ids(head)
        # Who wrote it by hand has it once, too.
        self.before = ids if ids[:1] == bos else [*bos, *ids]
        self.after = self._ids(self._tail)
        self._words, self._on = {}, {}

    def word(self, word):
        """Token ids of a word in its place, and the end token.

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
        if word not in self._words:
            self._words[word] = self._word(word)
        return self._words[word]

    def _word(self, word):
        # A word's first token depends on the space before it.
        text = [(f"{self._space}{word}", self._obeyed)]
        whole, n = self._ids([*self._tail, *text]), len(self.after)
        # Some tokenizers merge over the border: the word by itself, then.
        ids = whole[n:] if whole[:n] == self.after else self._ids(text)
        if not word.strip() or not ids:
            raise InputError(f"label {word!r} has no token in this LLM")
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and all(i == unknown for i in ids):
            raise InputError(
                f"label {word!r} is unknown to this LLM's tokenizer"
            )
        return [*ids, self.end_token]

    def tensors(self, device):
        """Tokens before and after the audio, kept on a device.

        Arguments
        ---------
        device : torch.device
            Where to.

        Returns
        -------
        tuple of torch.Tensor
            ``[before]`` and ``[after]``, int64.
        """
        if device not in self._on:
            # Kept for training too, whoever asks first.
            with torch.inference_mode(False):
                self._on[device] = tuple(
                    torch.tensor(ids, dtype=torch.long, device=device)
                    for ids in (self.before, self.after)
                )
        return self._on[device]

    def _with_ends(self, text):
        """A user's text in parts, between which stands the end token."""
        first, *others = text.split(END)
        end = self._tokenizer.convert_ids_to_tokens(self.end_token)
        parts = [(first, self._obeyed)]
        for other in others:
            parts += [(end, True), (other, self._obeyed)]
        return parts

    def _ids(self, parts):
        """Tokens of texts that follow each other."""
        texts = [text for text, _ in parts]
        is_plain = not any(
            control in text
            for text, obeyed in parts
            if not obeyed
            for control in self._controls
        )
        if is_plain:
            return self._encode("".join(texts))
        return [
            number
            for text, obeyed in parts
            for number in self._encode(text, split_special_tokens=not obeyed)
        ]

    def _encode(self, text, **how):
        return self._tokenizer.encode(text, add_special_tokens=False, **how)

    def _fill_in_template(self):
        """What the template writes before the user's turn, after it, and
        between that and the answer; sets the end token."""
        turn, answer = (f"x{secrets.token_hex(8)}x" for _ in range(2))
        chat = [{"role": "user", "content": turn}]
        asked = self._render(chat, add_generation_prompt=True)
        start, _, ending = asked.partition(turn)
        if asked.count(turn) != 1:
            raise InputError(
                f"chat_template: that of the LLM {self._source} does not "
                "write a user's turn once; leave it False"
            )
        chat.append({"role": "assistant", "content": answer})
        answered = self._render(chat)
        space = ""
        # Where it writes an answer that was given as one that is to come.
        if answered.startswith(asked) and answer in answered:
            space, _, rest = answered[len(asked) :].partition(answer)
            first = self._encode(rest.strip())[:1]
            if first and first[0] in self._controls.values():
                (self.end_token,) = first
        return start, ending, space

    def _render(self, chat, **how):
        try:
            return self._tokenizer.apply_chat_template(
                chat, tokenize=False, **TEMPLATE_ARGUMENTS, **how
            )
        # Of a tokenizer without one, and whatever a template raises.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"chat_template: the LLM {self._source} has none for a user's "
                f"turn ({reason}); leave it False"
            ) from None
