"""Options and arguments that several commands have, each with one name and one meaning."""

from __future__ import annotations

from typing import Final

import click

from eventic_core.settings import URL_PLACES


def _numbers(_ctx: click.Context, _option: click.Parameter, value: str | None) -> list[int] | None:
    """Make a list of numbers of items: `3,7,10-20`."""
    if value is None:
        return None
    found: list[int] = []
    for part in map(str.strip, value.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            message = f"{part!r} is neither a number nor a range. Write 3,7,10-20."
            raise click.BadParameter(message)
        found += range(int(first), int(last or first) + 1)
    return found


database_option: Final = click.option(
    "--database-url",
    metavar="URL",
    help=f"The database; else the first of {', '.join(URL_PLACES[1:])}, else the embedded Postgres.",
)
app_option: Final = click.option(
    "--app", metavar="MODULE", envvar="EVENTIC_APP", help="Import MODULE first, which declares what this is about."
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
actor_option: Final = click.option("--actor", metavar="NAME", help="Who does it, noted with each version.")
reason_option: Final = click.option("--reason", metavar="TEXT", help="Why, noted with the act.")
request_key_option: Final = click.option(
    "--request-key", metavar="KEY", help="Names this request: given again with the same key, nothing is done again."
)
numbers_option: Final = click.option(
    "--numbers", callback=_numbers, metavar="N,N-N", help="Only items with these numbers."
)
