"""The fish shell."""

from __future__ import annotations

from isoenv.shells.base import Shell, checked_value


class Fish(Shell):
    """A shell in which backslash and quote alone have a meaning between single quotes.

    fish splits a variable whose name ends in PATH at its colons and joins it again for child
    processes. In PATH and CDPATH alone it turns an empty entry into ``.``, which means the same.
    """

    def quote(self, value: str) -> str:
        """One word that is exactly this value."""
        return "'" + checked_value(value).replace("\\", r"\\").replace("'", r"\'") + "'"


# Always global: erasing a universal variable would take it from every fish of the user, for good.
FISH = Fish("fish", export="set -gx {0} {1}", assign="set -gu {0} {1}", unset="set -eg {0}")
