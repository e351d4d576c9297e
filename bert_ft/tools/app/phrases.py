"""What the page says, in its languages."""

from __future__ import annotations

import re

LANGUAGES = {"en": "English", "zh": "中文"}
TAGS = {"en": "en", "zh": "zh-CN"}
"""What the page declares as its language."""

PHRASES: dict[str, tuple[str, str]] = {
    # inputs
    "text": ("Text", "文本"),
    "first": ("First text", "第一段文本"),
    "text_pair": ("Second text", "第二段文本"),
    "question": ("Question", "问题"),
    "context": ("Text that has the answer", "含有答案的文本"),
    "answer": ("Answer", "预测"),
    "missing": ("Type something first: {roles}", "请先输入：{roles}"),
    "waiting": ("The model is at work …", "模型正在计算……"),
    # answers
    "probabilities": ("Probabilities", "概率"),
    "threshold": ("threshold {share}", "阈值 {share}"),
    "chosen": ("chosen", "选中"),
    "none_chosen": ("No label is above its threshold.", "没有标签超过阈值。"),
    "more_labels": ("and {count} labels of {share} or less", "另有 {count} 个标签不超过 {share}"),
    "no_entities": ("No entities in this text.", "这段文本里没有实体。"),
    "number": ("The predicted number", "预测值"),
    "no_answer": ("The text has no answer to this question.", "文本里没有这个问题的答案。"),
    "odds": (
        "No-answer odds {odds}: above {threshold} the model says that there is no answer.",
        "无答案倾向 {odds}：高于 {threshold} 时，模型认为没有答案。",
    ),
    "score": ("probability {share}", "概率 {share}"),
    # notes
    "truncated": (
        "The text is longer than the model reads ({length} tokens): a part of it was cut off and does not "
        "count.",
        "文本超过模型能读的长度（{length} 个词元）：有一部分被截掉，没有参与计算。",
    ),
    "long_question": (
        "The question is longer than the model reads: its end was cut off and does not count.",
        "问题超过模型能读的长度：末尾被截掉，没有参与计算。",
    ),
    "unread": (
        "The model's vocabulary lacks {share} of this text: it does not see that part.",
        "模型的词表里没有这段文本的 {share}：这部分模型看不到。",
    ),
    "unfinished": (
        "This run is not finished: its best weights so far answer.",
        "这次训练还没有完成：用的是目前最好的权重。",
    ),
    # examples
    "examples": ("Where the model was wrong ({set})", "模型答错的例子（{set}）"),
    "gold": ("label: {label}", "标注：{label}"),
    "predicted": ("predicted: {label}", "预测：{label}"),
    "missed": ("missed: {label}", "漏掉：{label}"),
    "wrong": ("wrong: {label}", "多出：{label}"),
    "nothing": ("none", "无"),
    "validation": ("validation", "验证集"),
    "test": ("test", "测试集"),
    "out_of_fold": ("out of fold", "交叉验证"),
    # files
    "file": ("A file of rows", "成批预测"),
    "file_hint": (
        "CSV, TSV, JSONL, Parquet or text, with the columns: {columns}. The answers stand beside the rows.",
        "CSV、TSV、JSONL、Parquet 或纯文本文件，列名：{columns}。预测结果写在每行后面。",
    ),
    "upload": ("Choose a file", "选择文件"),
    "download": ("Download the answers", "下载结果"),
    "answered": ("Rows answered: {count}", "已预测 {count} 行。"),
    "bad_rows": (
        "Rows at fault, which are left out: {bad} of {rows}",
        "{rows} 行中有 {bad} 行有问题，已跳过",
    ),
    "more_rows": ("and {count} more", "还有 {count} 行"),
    # the page
    "local": ("What is typed here stays on this machine.", "输入的内容只留在这台机器上。"),
}  # fmt: skip


def phrase(language: str, name: str, /, **values: object) -> str:
    """A phrase in a language, with its values. A name that is no phrase stands for itself: a role of a
    family of the user's own."""
    texts = PHRASES.get(name)
    return name if texts is None else texts[list(LANGUAGES).index(language)].format(**values)


def preferred(accepted: str) -> str:
    """The page's language that a browser likes best.

    Args:
        accepted: its `Accept-Language` header: "zh-CN,zh;q=0.9,en;q=0.8".
    """
    ranked = []
    for place, item in enumerate(accepted.split(",")):
        tag, _, quality = item.partition(";")
        match = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", quality)
        ranked.append((-float(match[1]) if match else -1.0, place, tag.strip().lower()[:2]))
    likes = [language for quality, _, language in sorted(ranked) if quality and language in LANGUAGES]
    return likes[0] if likes else "en"
