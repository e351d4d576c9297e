#!/usr/bin/env bash
# Guess: the words of a segmenter, joined, are the text without its spaces, and stand one behind the other; and the places of
# annotations in a BioC passage count in the passage's text.
# Found: kiwipiepy gives a contracted syllable as two morphemes of one place, whose letters are none of the text. fugashi keeps
# white space apart, and a half-width sign in a number is four words. BioC's offsets count from the document's start, so that a
# slice of the passage is another word.
source "$(dirname "$0")/environment.bash"
python=$(environment kiwipiepy==0.24.1 fugashi==1.5.2 unidic-lite==1.0.8 bioc==2.1)
"$python" - <<'PY'
import sys
from importlib.metadata import version

import fugashi
from bioc import biocxml
from kiwipiepy import Kiwi

print(*(f"{name} {version(name)}" for name in ("kiwipiepy", "fugashi", "unidic-lite", "bioc")))
text = "나는 서울에 갔다."
morphemes = [(token.form, token.start, token.len) for token in Kiwi().tokenize(text)]
print(text, morphemes)
tagger = fugashi.Tagger()
words = [[(word.surface, word.white_space) for word in tagger(text)] for text in ("New York に行く", "3.5％")]
print(*words, sep="\n")
document = biocxml.loads(
    "<collection><source/><date/><key/><document><id>1</id><passage><offset>10</offset><text>Aspirin works</text>"
    '<annotation id="T1"><location offset="10" length="7"/><text>Aspirin</text></annotation></passage></document></collection>'
)
passage = document.documents[0].passages[0]
place = passage.annotations[0].locations[0]
slices = [passage.text[place.offset : place.end], passage.text[place.offset - passage.offset : place.end - passage.offset]]
print("BioC: by the annotation's offsets", repr(slices[0]), "and less the passage's", repr(slices[1]))
doubled = [("가", 7, 1), ("었", 7, 1)]
sys.exit(not (
    all(morpheme in morphemes for morpheme in doubled)
    and "".join(surface for surface, _ in words[0]) == "NewYorkに行く"
    and [surface for surface, _ in words[1]] == ["3", ".", "5", "％"]
    and slices == ["rks", "Aspirin"]
))
PY
