"""`python -m bert_ft`: what `accelerate launch -m bert_ft` starts."""

from bert_ft.cli import main

main()
