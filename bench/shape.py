"""The figures of `serving.py` for an encoder of multilingual-e5-small's shape, with random weights:

    python bench/shape.py --data FOLDER --work WORK [--json FILE]

12 layers of width 384 and 250,002 tokens, of which the embedding table is 384 MB. The weights are random and so are
the hits; what a search costs and what an encoder takes of memory is the shape's. The tokenizer is a unigram one, as
XLM-RoBERTa's: the words and beginnings of words of MedQuAD, filled up with pieces that never occur.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from residency import measure_resident, register, rss_mb, service
from road import read_judged
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from serving import CLIENTS, ROUNDS, Report, measure_alone, middle, write_bodies, wrk
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from app.beir import read_jsonl
from app.client import AdiabatClient

LAYERS, WIDTH, HEADS, TOKENS, MAX_LENGTH = 12, 384, 12, 250_002, 512
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
PASSAGES = 2_000
ENCODERS = 10
ROOM = 2**32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("bench-data"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    work, source = given.work / "shape", given.data / "medquad"
    work.mkdir(parents=True, exist_ok=True)
    model = work / "model"
    if not model.exists():
        build(model, [row["text"] for _, row in read_jsonl(source / "corpus.jsonl")])
    os.environ["ADIABAT_PASSAGE_ENCODER"] = str(model)
    questions = [query for query, _ in read_judged(source, "dev")]
    searches = write_bodies(work / "searches.jsonl", [{"query": each} for each in questions])
    with service(work, ROOM) as (_, client):
        fill(client, source)
    report: Report = {"alone": measure_alone(work, questions)}
    with service(work, ROOM) as (pid, client):
        wrk(client.url, "/search", searches, CLIENTS, seconds=2)
        for clients in (1, CLIENTS):
            rounds = [wrk(client.url, "/search", searches, clients) for _ in range(ROUNDS)]
            report[f"{clients} clients"] = middle(rounds)
        register(client, work / "sources", count=ENCODERS, model=model)
    with service(work, ROOM) as (pid, client):
        report["idle_rss_mb"] = round(rss_mb(pid), 1)
        report["resident"] = measure_resident(pid, client, ENCODERS)
    print(json.dumps(report, indent=1))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")


def fill(client: AdiabatClient, source: Path) -> None:
    if client.count_passages() >= PASSAGES:
        return
    rows = [row for _, row in read_jsonl(source / "corpus.jsonl")][:PASSAGES]
    for at in range(0, PASSAGES, 100):
        client.upsert_passages([{"id": row["_id"], "text": row["text"]} for row in rows[at : at + 100]])


def build(folder: Path, texts: Sequence[str]) -> None:
    """Write the encoder as a sentence-transformers folder."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=SPECIAL.index("<pad>"),
        initializer_range=0.1,  # at the usual 0.02 an untrained encoder has one vector for all texts
    )
    plain = folder.with_name("plain")
    BertModel(config, add_pooling_layer=False).save_pretrained(plain)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=unigram(texts),
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=MAX_LENGTH)
    SentenceTransformer(modules=[transformer, Pooling(WIDTH), Normalize()]).save(str(folder))


def unigram(texts: Sequence[str]) -> Tokenizer:
    words = Counter(word for text in texts for word in text.split())
    pieces: Counter[str] = Counter()
    for word, times in words.items():
        for end in range(1, len(word) + 1):
            pieces["▁" + word[:end]] += times
        pieces.update(dict.fromkeys(word, times))
    ranked = [piece for piece, _ in pieces.most_common(TOKENS - len(SPECIAL))]
    filler = (f"▁◌{number:x}" for number in range(TOKENS))
    while len(ranked) < TOKENS - len(SPECIAL):
        ranked.append(next(filler))
    vocabulary = [(each, 0.0) for each in SPECIAL] + [(each, -5 - rank / 20_000) for rank, each in enumerate(ranked)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=SPECIAL.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


if __name__ == "__main__":
    main()
