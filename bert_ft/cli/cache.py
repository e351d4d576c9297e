"""`bert-ft cache`: show the cache of tokenized rows, or empty it."""

from __future__ import annotations

from datetime import datetime

import typer

from bert_ft.cli.options import Json, cache_app, print_json, print_line, print_table


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context, as_json: Json = False) -> None:
    """Show where the cache of tokenized rows lies ($BERT_FT_CACHE) and how big it is."""
    if context.invoked_subcommand is not None:
        return
    from bert_ft.engine import feature_cache

    kept, place = feature_cache.kept(), str(feature_cache.root())
    total = sum(entry["bytes"] for entry in kept)
    if as_json:
        print_json({"folder": place, "bytes": total, "entries": kept})
        return
    if kept:
        print_table(
            [
                {
                    "entry": e["entry"],
                    "rows": f"{e['rows']:,}",
                    "tokens": f"{e['tokens']:,}",
                    "size": _size(e["bytes"]),
                    "made": f"{datetime.fromtimestamp(e['made']):%Y-%m-%d %H:%M}",
                }
                for e in kept
            ]
        )
    print_line(f"{place}: {len(kept)} entries, {_size(total)}")


@cache_app.command("clear")
def cache_clear(as_json: Json = False) -> None:
    """Empty the cache of tokenized rows; what is needed again is made again."""
    from bert_ft.engine import feature_cache

    place, freed = str(feature_cache.root()), feature_cache.clear()
    print_json({"folder": place, "freed": freed}) if as_json else print_line(f"{place}: {_size(freed)} freed")


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
