"""Tiny random encoders in sentence-transformers form: real files, real tokenizers, no training, no network.

`build_tiny` writes one in about a tenth of a second. The same arguments write the same bytes of weights, so tests
may build the same encoder twice; another `seed` gives another encoder of the same shape.
"""

import string
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

Family = Literal["bert", "distilbert", "xlm-roberta", "mpnet", "modernbert"]
PoolingMode = Literal["mean", "cls", "max", "lasttoken"]
FAMILIES: tuple[Family, ...] = ("bert", "distilbert", "xlm-roberta", "mpnet", "modernbert")

_WORDS = [
    "what",
    "is",
    "the",
    "a",
    "of",
    "in",
    "to",
    "and",
    "how",
    "does",
    "do",
    "can",
    "my",
    "for",
    "with",
    "symptom",
    "heart",
    "valve",
    "pump",
    "leak",
    "pressure",
    "treatment",
    "water",
    "engine",
    "filter",
    "oil",
    "repair",
    "cost",
    "doctor",
    "pain",
    "sleep",
    "light",
    "fire",
    "night",
    "was",
    "ist",
    "der",
    "die",
    "das",
    "und",
    "wie",
    "funktioniert",
    "el",
    "la",
    "los",
    "que",
    "cómo",
    "qué",
    "es",
    "une",
    "le",
    "les",
    "est",
    "comment",
    "bệnh",
    "là",
    "gì",
    "như",
    "thế",
    "nào",
]
_LETTERS = string.ascii_lowercase + string.digits + string.punctuation + "äöüßéèñáíóúçđệìưế天地水火心病的是什么如何"
_BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def build_tiny(
    folder: Path,
    *,
    family: Family = "bert",
    pooling: PoolingMode = "mean",
    dense: int | None = None,
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    max_length: int = 64,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Write a tiny random encoder to `folder` (made if missing) and return the folder.

    `dense` adds a tanh layer to that many dimensions; without it the dimension is `hidden`.
    `prompts` is written as sentence-transformers keeps it, e.g. `{"query": "query: ", "document": "passage: "}`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / ".plain"
    tokenizer = _tokenizer(family)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _model(family, tokenizer, hidden, layers).save_pretrained(plain)
        tokenizer.model_max_length = max_length
        tokenizer.save_pretrained(plain)
        chain: list[Any] = [Transformer(str(plain), max_seq_length=max_length)]
        chain.append(Pooling(hidden, pooling_mode=pooling))
        if dense is not None:
            chain.append(Dense(hidden, dense))
        if normalize:
            chain.append(Normalize())
    SentenceTransformer(modules=chain, device="cpu", prompts=prompts).save(str(folder), create_model_card=False)
    for file in plain.iterdir():
        file.unlink()
    plain.rmdir()
    return folder


def _model(family: Family, tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> torch.nn.Module:
    # A wide init keeps the vectors of different texts apart; at 0.02 an untrained encoder maps all to one point.
    shape = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.4}
    if family == "distilbert":
        config = DistilBertConfig(dim=hidden, hidden_dim=2 * hidden, n_layers=layers, n_heads=4, **shape)
        return DistilBertModel(config)
    shape |= {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": 4, "max_position_embeddings": 130}
    if family == "bert":
        return BertModel(BertConfig(**shape))
    if family == "xlm-roberta":
        return XLMRobertaModel(XLMRobertaConfig(type_vocab_size=1, **shape))
    if family == "mpnet":
        return MPNetModel(MPNetConfig(**shape))
    marks = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertModel(ModernBertConfig(local_attention=8, global_attn_every_n_layers=2, **shape, **marks))


def _tokenizer(family: Family) -> PreTrainedTokenizerFast:
    roberta = family in ("xlm-roberta", "mpnet")
    cls, pad, sep, unk, mask = _ROBERTA_SPECIALS if roberta else [_BERT_SPECIALS[i] for i in (2, 0, 3, 1, 4)]
    specials = _ROBERTA_SPECIALS if roberta else _BERT_SPECIALS
    inner = _unigram(specials) if family == "xlm-roberta" else _wordpiece(specials, unk)
    ids = {token: inner.token_to_id(token) for token in (cls, sep)}
    inner.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=list(ids.items())
    )
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_input_names=[*names, "token_type_ids"] if family == "bert" else names,
        **{"cls_token": cls, "pad_token": pad, "sep_token": sep, "unk_token": unk, "mask_token": mask},
    )


def _wordpiece(specials: list[str], unk: str) -> Tokenizer:
    pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*specials, *pieces]))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return inner


def _unigram(specials: list[str]) -> Tokenizer:
    pieces = [*(f"▁{word}" for word in _WORDS), "▁", *_LETTERS, *string.ascii_uppercase]
    scored = [(piece, -1.0 - 0.01 * rank) for rank, piece in enumerate(dict.fromkeys(pieces))]
    inner = Tokenizer(models.Unigram([*((token, 0.0) for token in specials), *scored], unk_id=3))
    inner.normalizer = normalizers.Sequence([normalizers.NFKC()])
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return inner
