"""Small language models, trained here in seconds on a few sentences until they know them.

Used by `cases`. Each is made once per process. Training that did not work is an error, not a model.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

SENTENCES = (
    "the meeting moved to monday",
    "a cat sat on the warm stone wall",
    "rain",
    "prices went up again while wages did not and nobody was surprised",
)
LABELS = ("work", "home", "weather")
_LABELLED = {
    "the meeting moved to monday": "work",
    "prices went up again while wages did not and nobody was surprised": "work",
    "wages moved up again": "work",
    "the meeting went on again": "work",
    "nobody was surprised the meeting moved": "work",
    "a cat sat on the warm stone wall": "home",
    "the cat sat on a wall": "home",
    "a warm stone wall": "home",
    "nobody sat on the wall while the cat did": "home",
    "rain": "weather",
    "rain again on monday": "weather",
    "warm rain": "weather",
    "rain and again rain": "weather",
}
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    # Dropout keeps so small a model from learning so little by heart.
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@cache
def tokenizer() -> Any:
    """A tokenizer of whole words, made from the sentences."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for sentence in (*SENTENCES, *_LABELLED) for word in sentence.split()})
    known = ["[PAD]", "[UNK]", "[EOS]", *words]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(known)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=64
    )


@cache
def classifier() -> tuple[Any, Any]:
    """A classifier that tells what each of the labelled sentences is about, and its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(1)
    words = tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(words), num_labels=len(LABELS), id2label=dict(enumerate(LABELS)), **_BERT
    )
    model = transformers.BertForSequenceClassification(config)
    tokens, target = _labelled(words)
    _train(model.parameters(), lambda: model(**tokens, labels=target).loss, steps=80, rate=5e-3)
    model.eval()
    found = model(**tokens).logits.argmax(dim=1)
    assert found.tolist() == target.tolist(), "the classifier did not learn its sentences"
    return model, words


@cache
def encoder() -> tuple[Any, Any]:
    """An encoder whose mean vectors lie together by label, and its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(2)
    words = tokenizer()
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **_BERT))
    tokens, target = _labelled(words)
    mask = tokens["attention_mask"].unsqueeze(-1)
    same = target[:, None] == target[None, :]

    def alike() -> Any:
        hidden = (model(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
        unit = torch.nn.functional.normalize(hidden, dim=1)
        return unit @ unit.T

    _train(
        model.parameters(),
        lambda: torch.where(same, 1 - alike(), alike().clamp(min=0)).mean(),
        steps=80,
        rate=3e-3,
    )
    model.eval()
    with torch.no_grad():
        assert alike()[same].min() > alike()[~same].max(), "the encoder did not learn its labels"
    return model, words


@cache
def generator() -> tuple[Any, Any]:
    """A model that says the sentences one after the other, for ever, and its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(3)
    words = tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(words),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    model = transformers.GPT2LMHeadModel(config)
    said: Sequence[int] = words(" ".join(SENTENCES * 4))["input_ids"]
    rounds = len(said) // 4
    tokens = torch.tensor([said[start : start + 64] for start in range(0, rounds, 3)])
    _train(model.parameters(), lambda: model(input_ids=tokens, labels=tokens).loss, steps=120, rate=1e-2)
    model.eval()
    start = words(SENTENCES[0], return_tensors="pt")
    more = model.generate(**start, max_new_tokens=8, do_sample=False)[0, len(SENTENCES[0].split()) :]
    assert words.decode(more) == SENTENCES[1], "the generator did not learn its sentences"
    return model, words


def _labelled(words: Any) -> tuple[Any, Any]:
    import torch

    tokens = words(list(_LABELLED), padding=True, return_tensors="pt")
    # A whole-word tokenizer says nothing of a second sentence that BERT would need.
    kept = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    return kept, torch.tensor([LABELS.index(label) for label in _LABELLED.values()])


def _train(parameters: Any, loss: Any, steps: int, rate: float) -> None:
    import torch

    # More threads than that would wait for each other: the models are small.
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
